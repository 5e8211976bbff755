//! `idem doctor`.

use idem_core::inspect::{Health, Operator};
use serde_json::json;

use crate::args::Doctor;
use crate::exit::{Exit, Failure};
use crate::output::{Cell, Output, Tone};

pub(crate) async fn doctor(operator: &Operator, asked: &Doctor, output: &mut Output) -> Result<Exit, Failure> {
    let findings = operator.diagnose().await?;
    let worst = findings
        .iter()
        .map(|finding| finding.health)
        .max()
        .unwrap_or(Health::Good);
    let least = if asked.strict {
        Health::Unchecked
    } else {
        Health::Failing
    };
    let exit = if worst >= least { Exit::Unhealthy } else { Exit::Done };
    if output.is_json {
        let findings: Vec<_> = findings
            .iter()
            .map(|finding| json!({ "check": finding.check, "health": name(finding.health).0, "text": finding.text }))
            .collect();
        output.json(&json!({ "health": name(worst).0, "findings": findings }))?;
        return Ok(exit);
    }
    let rows: Vec<_> = findings
        .iter()
        .map(|finding| {
            let (name, tone) = name(finding.health);
            vec![
                Cell::toned(name, tone),
                Cell::new(finding.check),
                Cell::new(&finding.text),
            ]
        })
        .collect();
    output.rows(&rows)?;
    Ok(exit)
}

fn name(health: Health) -> (&'static str, Tone) {
    match health {
        Health::Good => ("good", Tone::Good),
        Health::Unchecked => ("unchecked", Tone::Faint),
        Health::Warning => ("warning", Tone::Warning),
        Health::Failing => ("failing", Tone::Bad),
    }
}
