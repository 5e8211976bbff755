//! The siege: a service among hostile clients, and a tenant beside them who has done nothing to anybody.
//!
//! Owns who attacks in which way (`hostile`), what the tenant must notice of it: nothing (`tenant`), and what the attack
//! costs the process and the server behind it (`costs`). Before it, crowds come to one record (`crowd`). Nothing is killed
//! here: that is the rest of the lab.
//!
//! Judged is what does not depend on the machine: that each of the tenant's requests is answered as it would be alone, that no
//! key with a large answer runs twice, and how many connections there are to the server. How long things take is reported.

mod costs;
mod crowd;
mod hostile;
mod report;
mod tenant;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

pub(in crate::lab) use self::costs::memory;
use self::costs::{Besieged, Costs};
use self::crowd::Crowds;
use self::hostile::{Attack, Ends};
pub use self::report::Report;
use super::journal::{Event, read};
use super::server::Backend;
use crate::Program;

/// The share of the time in which the tenant is alone, for comparison.
const ALONE: u32 = 6;

/// How often it is looked what the attack costs.
const LOOK: Duration = Duration::from_millis(500);

/// How many connections to the server a process may have. They are a matter of settings, not of clients.
const CONNECTIONS: u64 = 64;

/// Besieges one process of the `server` at `binary` for so long.
pub async fn run(binary: &Path, backend: Backend, time: Duration, seed: u64) -> Report {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let journal = folder.path().join("journal");
    let besieged = Besieged::start(backend).await;
    let process = Program::new(binary, &besieged.url()).journaled(&journal).start();

    let crowds = Crowds::come(&besieged).await;
    let alone = tenant::live(&process.client, "before", until_over(time / ALONE)).await;

    let is_over = Arc::new(AtomicBool::new(false));
    let mut attackers = JoinSet::new();
    for (number, attack) in Attack::all().into_iter().enumerate() {
        let seed = seed.wrapping_mul(1_000).wrapping_add(number as u64);
        let (client, is_over) = (process.client.clone(), is_over.clone());
        attackers.spawn(async move { (attack, hostile::attack(&client, attack, seed, &is_over).await) });
    }
    let siege = until_over(time / ALONE * (ALONE - 1));
    let looking = async {
        let mut costs = Costs::default();
        while siege() {
            costs.look(process.id(), &besieged).await;
            sleep(LOOK).await;
        }
        costs
    };
    let (costs, besieged_tenant) = tokio::join!(looking, tenant::live(&process.client, "during", &siege));
    is_over.store(true, Ordering::Relaxed);
    let mut attacks: BTreeMap<Attack, Ends> = BTreeMap::new();
    for (attack, ends) in attackers.join_all().await {
        attacks.entry(attack).or_default().add(ends);
    }

    let mut report = Report {
        backend,
        crowds,
        alone,
        besieged: besieged_tenant,
        attacks,
        costs,
        violations: Vec::new(),
    };
    report.judge(CONNECTIONS, &executed_again(&journal));
    report
}

/// Says for so long that it is not over.
fn until_over(time: Duration) -> impl Fn() -> bool {
    let end = Instant::now() + time;
    move || Instant::now() < end
}

/// The keys that ran more often than once.
fn executed_again(journal: &Path) -> Vec<String> {
    let mut runs: BTreeMap<String, u32> = BTreeMap::new();
    for entry in read(journal) {
        if let Event::Began { key, .. } = entry.event {
            *runs.entry(key).or_default() += 1;
        }
    }
    let again = runs.into_iter().filter(|(_, runs)| *runs > 1);
    again.map(|(key, runs)| format!("{key} ran {runs} times")).collect()
}
