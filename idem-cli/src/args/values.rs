//! Values that the command line takes within bounds.

use std::time::Duration;

/// The shortest pause between two scans. Without one, the store would do nothing else.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);

/// Why a record is changed. The log is for later questions, and an empty reason answers none.
pub(super) fn reason(text: &str) -> Result<String, &'static str> {
    if text.trim().is_empty() {
        return Err("say why");
    }
    Ok(text.to_owned())
}

/// The pause between two looks of `watch`.
pub(super) fn pause(text: &str) -> Result<Duration, String> {
    let pause = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if pause < SHORTEST_PAUSE {
        return Err(format!("at least {}ms", SHORTEST_PAUSE.as_millis()));
    }
    Ok(pause)
}
