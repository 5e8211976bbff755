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

/// The status of a final answer.
pub(super) fn status(text: &str) -> Result<http::StatusCode, String> {
    let number = text.parse::<u16>().ok().filter(|number| (200..600).contains(number));
    let status = number.and_then(|number| http::StatusCode::from_u16(number).ok());
    status.ok_or_else(|| "the status of a final answer is 200 to 599".to_owned())
}
