//! Durations as people write them: `"24h"`, `"1h 30m"`.

use std::time::Duration;

const UNITS: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

/// Reads one or more numbers with units; the error says what is wrong with `text`.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let mut millis: u64 = 0;
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err("it is empty".into());
    }
    while !rest.is_empty() {
        let (digits, after) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len()));
        let after = after.trim_start();
        let (unit, after) = after.split_at(after.find(|c: char| !c.is_alphabetic()).unwrap_or(after.len()));
        let number: u64 = match digits {
            "" => return Err(format!("`{rest}` does not begin with a whole number")),
            digits => digits.parse().map_err(|_| format!("`{digits}` is too large"))?,
        };
        let unit = match (unit, UNITS.iter().find(|(name, _)| *name == unit)) {
            (_, Some((_, factor))) => *factor,
            ("", None) => return Err(format!("`{digits}` has no unit")),
            (unit, None) => return Err(format!("`{unit}` is no unit")),
        };
        millis = number
            .checked_mul(unit)
            .and_then(|part| millis.checked_add(part))
            .ok_or_else(|| format!("`{text}` is too long"))?;
        rest = after.trim_start();
    }
    Ok(Duration::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_with_units_add_up() {
        for (text, millis) in [
            ("24h", 86_400_000),
            ("7d", 604_800_000),
            ("1h 30m", 5_400_000),
            ("1h30m", 5_400_000),
            (" 90 s ", 90_000),
            ("250ms", 250),
            ("0s", 0),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_says_why() {
        for (text, why) in [
            ("", "it is empty"),
            ("24", "`24` has no unit"),
            ("h", "`h` does not begin with a whole number"),
            ("1.5h", "`1` has no unit"),
            ("-1s", "`-1s` does not begin with a whole number"),
            ("24 hours", "`hours` is no unit"),
            ("1h,30m", "`,30m` does not begin with a whole number"),
            ("99999999999999999999s", "`99999999999999999999` is too large"),
            ("9999999999999999999d", "`9999999999999999999d` is too long"),
        ] {
            assert_eq!(parse(text), Err(why.to_owned()), "{text}");
        }
    }
}
