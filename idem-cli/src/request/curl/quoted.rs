//! What a shell does with a command, beyond splitting it into words.
//!
//! Owns `$'…'`, as browsers write the bodies that they copy as a `curl` command, and what only a shell can know: variables. The crate that
//! splits the words knows neither.

/// Whether only a shell could tell what the command is: it has a variable or the output of another command in it, or characters outside of
/// quotation marks that end a command, send its output elsewhere, or escape in another shell.
pub(super) fn needs_shell(command: &str) -> bool {
    let (mut in_single, mut in_double) = (false, false);
    let mut characters = command.chars().peekable();
    while let Some(character) = characters.next() {
        let next = characters.peek().copied().unwrap_or_default();
        match character {
            '\\' if !in_single => drop(characters.next()),
            // The escapes of `$'…'` are read elsewhere; what is important here is where it ends.
            '$' if !in_single && !in_double && next == '\'' => {
                characters.next();
                while let Some(inner) = characters.next() {
                    match inner {
                        '\\' => drop(characters.next()),
                        '\'' => break,
                        _ => {}
                    }
                }
            }
            '`' if !in_single => return true,
            '$' if !in_single && (next.is_ascii_alphanumeric() || "_{(".contains(next)) => return true,
            '$' if !in_single && !in_double && next == '"' => return true,
            ';' | '&' | '|' | '<' | '>' | '(' | ')' | '^' if !in_single && !in_double => return true,
            '\'' if !in_double => in_single = !in_single,
            '"' if !in_single => in_double = !in_double,
            _ => {}
        }
    }
    false
}

/// The command with each `$'…'` in plain single quotation marks; `None` if one is not closed, or has an escape that is none.
pub(super) fn without_ansi_quotes(command: &str) -> Option<String> {
    let mut plain = String::with_capacity(command.len());
    let (mut in_single, mut in_double) = (false, false);
    let mut characters = command.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '$' if !in_single && !in_double && characters.peek() == Some(&'\'') => {
                characters.next();
                let text = ansi_quoted(&mut characters)?;
                plain.push('\'');
                plain.push_str(&text.replace('\'', r"'\''"));
                plain.push('\'');
                continue;
            }
            '\\' if !in_single => {
                plain.push(character);
                plain.extend(characters.next());
                continue;
            }
            '\'' if !in_double => in_single = !in_single,
            '"' if !in_single => in_double = !in_double,
            _ => {}
        }
        plain.push(character);
    }
    Some(plain)
}

/// What stands for the text up to the closing quotation mark.
fn ansi_quoted(characters: &mut impl Iterator<Item = char>) -> Option<String> {
    let mut text = String::new();
    loop {
        match characters.next()? {
            '\'' => return Some(text),
            '\\' => text.push(match characters.next()? {
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'x' => hexadecimal(characters, 2)?,
                'u' => hexadecimal(characters, 4)?,
                'U' => hexadecimal(characters, 8)?,
                other @ ('\\' | '\'' | '"' | '?') => other,
                _ => return None,
            }),
            other => text.push(other),
        }
    }
}

/// The character with this number. Browsers write all digits.
fn hexadecimal(characters: &mut impl Iterator<Item = char>, digits: usize) -> Option<char> {
    let text: String = characters.take(digits).collect();
    let is_whole = text.len() == digits && text.chars().all(|digit| digit.is_ascii_hexdigit());
    // Bytes of a character beyond ASCII would have to be put together.
    let number = u32::from_str_radix(&text, 16)
        .ok()
        .filter(|number| is_whole && (digits > 2 || *number < 0x80))?;
    char::from_u32(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_a_shell_can_tell_is_found() {
        for command in [
            "-H \"k: $KEY\"",
            "-d $BODY",
            "-d \"${a}\"",
            "-d \"$(cat a)\"",
            "-d `cat a`",
            "-d \"'$a'\"",
            "http://h/a?b=1&c=2",
            "-d '{}';",
            "-d a > b",
            "-d $\"a\"",
            "^\"http://h^\"",
        ] {
            assert!(needs_shell(command), "{command}");
        }
        for command in [
            "-d '$a `b`'",
            "-d \"\\$a \\`\"",
            "-d $'it\\'s $a'",
            "-d \"5 $\"",
            "-d '{\"a\":\"$b\"}'",
            "'http://h/a?b=1&c=2' -d \"a;b\" -d \\;",
        ] {
            assert!(!needs_shell(command), "{command}");
        }
    }

    #[test]
    fn ansi_quotes_are_read_and_all_others_are_left() {
        let table = [
            (r#"-d $'{"a":\'b\'}\n' x"#, Some("-d '{\"a\":'\\''b'\\''}\n' x")),
            (r"-d $'hey\u0021 \x41'", Some("-d 'hey! A'")),
            (r#"-d "$'a'" -d '$'b"#, Some(r#"-d "$'a'" -d '$'b"#)),
            (r"-d \$'a'", Some(r"-d \$'a'")),
            (r"-d $'a", None),
            (r"-d $'\xff'", None),
            (r"-d $'\q'", None),
        ];
        for (command, plain) in table {
            assert_eq!(without_ansi_quotes(command).as_deref(), plain, "{command}");
        }
    }
}
