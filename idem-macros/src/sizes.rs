//! Sizes as people write them: `"1MiB"`, `"64 KiB"`.

use crate::suggest;

const UNITS: [(&str, usize); 5] = [
    ("B", 1),
    ("KB", 1_000),
    ("KiB", 1024),
    ("MB", 1_000_000),
    ("MiB", 1024 * 1024),
];

/// Reads a whole number with a unit, in bytes; the error says what is wrong with `text`.
pub(crate) fn parse(text: &str) -> Result<usize, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err("this is empty".into());
    }
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let unit = unit.trim_start();
    let number: usize = match digits {
        "" => return Err(format!("`{text}` does not begin with a whole number")),
        digits => digits.parse().map_err(|_| format!("`{digits}` is too large"))?,
    };
    let Some((_, factor)) = UNITS.iter().find(|(name, _)| *name == unit) else {
        return Err(no_unit(text, digits, unit));
    };
    number
        .checked_mul(*factor)
        .ok_or_else(|| format!("`{text}` is too large"))
}

fn no_unit(text: &str, digits: &str, unit: &str) -> String {
    let names = || UNITS.iter().map(|(name, _)| *name);
    let meant = names().find(|name| name.eq_ignore_ascii_case(unit));
    match (unit, meant) {
        ("", _) => format!("`{digits}` has no unit; the units are {}", suggest::list(names())),
        (_, Some(meant)) => format!("`{unit}` is no unit; did you mean `{meant}`?"),
        (_, None) if unit.starts_with('.') => {
            format!("`{text}` is no whole number; write it in a smaller unit")
        }
        (_, None) => format!("`{unit}` is no unit; the units are {}", suggest::list(names())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_with_a_unit_is_a_size() {
        for (text, bytes) in [
            ("1MiB", 1_048_576),
            ("64 KiB", 65_536),
            ("2MB", 2_000_000),
            (" 10KB ", 10_000),
            ("512B", 512),
            ("0B", 0),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_says_why() {
        let units = "the units are `B`, `KB`, `KiB`, `MB` and `MiB`";
        for (text, why) in [
            ("", "this is empty".to_owned()),
            ("1024", format!("`1024` has no unit; {units}")),
            ("MiB", "`MiB` does not begin with a whole number".into()),
            ("-1B", "`-1B` does not begin with a whole number".into()),
            ("1mib", "`mib` is no unit; did you mean `MiB`?".into()),
            ("1Kb", "`Kb` is no unit; did you mean `KB`?".into()),
            (
                "1.5MiB",
                "`1.5MiB` is no whole number; write it in a smaller unit".into(),
            ),
            ("1GiB", format!("`GiB` is no unit; {units}")),
            ("99999999999999999999B", "`99999999999999999999` is too large".into()),
            (
                "18446744073709551615MiB",
                "`18446744073709551615MiB` is too large".into(),
            ),
        ] {
            assert_eq!(parse(text), Err(why), "{text}");
        }
    }
}
