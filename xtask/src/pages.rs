//! What the project's pages are made of: headings, links, and fenced blocks with the commands in them.
//!
//! Owns as much of Markdown as these pages use. What is done with the parts belongs to `links` and `newcomer`.

/// The text between two fences.
#[derive(Debug, PartialEq)]
pub(crate) struct Block<'a> {
    /// What follows the opening fence, such as `console`.
    pub(crate) info: &'a str,
    /// The last line with text before the fence.
    pub(crate) lead: &'a str,
    pub(crate) lines: Vec<&'a str>,
}

/// A command as a page shows it.
#[derive(Debug, PartialEq)]
pub(crate) struct Command {
    pub(crate) line: String,
    /// The lines that it is shown to print, of which `…` stands for any others.
    pub(crate) shown: Vec<String>,
}

const FENCE: &str = "```";

/// The lines of a page that are not between fences.
pub(crate) fn prose(page: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut is_fenced = false;
    let numbered = page.lines().zip(1..).map(|(line, number)| (number, line));
    numbered.filter(move |(_, line)| {
        let is_fence = line.starts_with(FENCE);
        is_fenced ^= is_fence;
        !is_fenced && !is_fence
    })
}

/// Every fenced block, in order.
pub(crate) fn blocks(page: &str) -> Vec<Block<'_>> {
    let mut blocks = Vec::new();
    let mut open = None;
    let mut lead = "";
    for line in page.lines() {
        match (line.strip_prefix(FENCE), open.take()) {
            (Some(_), Some(block)) => blocks.push(block),
            (Some(info), None) => {
                let lines = Vec::new();
                open = Some(Block { info, lead, lines });
            }
            (None, Some(mut block)) => {
                block.lines.push(line);
                open = Some(block);
            }
            (None, None) if !line.is_empty() => lead = line,
            (None, None) => {}
        }
    }
    blocks
}

impl Block<'_> {
    /// The commands of a `console` block: what is behind `$ `, to the first line that does not end with a backslash.
    pub(crate) fn commands(&self) -> Vec<Command> {
        let mut commands: Vec<Command> = Vec::new();
        let mut goes_on = false;
        for line in &self.lines {
            match (line.strip_prefix("$ "), commands.last_mut()) {
                (None, None) => continue,
                (None, Some(command)) if goes_on => {
                    command.line.push('\n');
                    command.line.push_str(line);
                }
                (None, Some(command)) => {
                    command.shown.push((*line).to_owned());
                    continue;
                }
                (Some(begun), _) => commands.push(Command {
                    line: begun.to_owned(),
                    shown: Vec::new(),
                }),
            }
            goes_on = line.ends_with('\\');
        }
        commands
    }
}

impl Command {
    /// What of the lines it is shown to print is not in `printed`, in that order.
    pub(crate) fn missing_in(&self, printed: &str) -> Option<&str> {
        let mut rest = printed;
        let mut pieces = self.shown.iter().flat_map(|line| line.split('…'));
        pieces.find(|piece| match rest.split_once(piece.trim()) {
            Some((_, behind)) => {
                rest = behind;
                false
            }
            None => true,
        })
    }
}

/// Where a link leads, and on which line it is.
pub(crate) fn links(page: &str) -> Vec<(usize, &str)> {
    let mut links = Vec::new();
    for (number, line) in prose(page) {
        let mut rest = line;
        while let Some((_, behind)) = rest.split_once("](") {
            let Some((target, behind)) = behind.split_once(')') else {
                break;
            };
            links.push((number, target));
            rest = behind;
        }
    }
    links
}

/// The names that links call the headings of a page by.
pub(crate) fn anchors(page: &str) -> Vec<String> {
    let headings = prose(page).filter_map(|(_, line)| {
        let title = line.trim_start_matches('#');
        title.strip_prefix(' ').filter(|_| line.starts_with('#'))
    });
    headings.map(anchor).collect()
}

/// As GitHub and rustdoc make them of a heading.
fn anchor(title: &str) -> String {
    let kept = title.trim().chars().filter_map(|character| match character {
        ' ' => Some('-'),
        '-' | '_' => Some(character),
        _ if character.is_alphanumeric() => Some(character.to_ascii_lowercase()),
        _ => None,
    });
    kept.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# `ttl`: how long?\n\nSee [this](docs/a.md#b) and [that](#c).\n\n```console\n$ one \\\n    two\nHTTP 201\n…\n{\"a\":1}\n\
                        $ three\n```\nThis is `src/main.rs`:\n\n```rust\n# [x](not-a-link)\n```\n";

    #[test]
    fn a_block_knows_its_language_and_the_line_before_it() {
        let blocks = blocks(PAGE);
        let named: Vec<_> = blocks.iter().map(|block| (block.info, block.lead)).collect();
        assert_eq!(
            named,
            [
                ("console", "See [this](docs/a.md#b) and [that](#c)."),
                ("rust", "This is `src/main.rs`:")
            ]
        );
    }

    #[test]
    fn a_command_goes_on_behind_a_backslash_and_shows_what_it_prints() {
        let commands = blocks(PAGE)[0].commands();
        let lines: Vec<_> = commands.iter().map(|command| command.line.as_str()).collect();
        assert_eq!(lines, ["one \\\n    two", "three"]);
        assert_eq!(commands[0].shown, ["HTTP 201", "…", "{\"a\":1}"]);
        assert!(commands[1].shown.is_empty());
    }

    #[test]
    fn what_is_shown_has_to_be_printed_in_that_order() {
        let command = &blocks(PAGE)[0].commands()[0];
        assert_eq!(command.missing_in("HTTP 201\r\nx: y\r\n\r\n{\"a\":1}"), None);
        assert_eq!(command.missing_in("{\"a\":1}\nHTTP 201"), Some("{\"a\":1}"));
        assert_eq!(command.missing_in("HTTP 409"), Some("HTTP 201"));
    }

    #[test]
    fn links_and_headings_are_those_outside_of_blocks() {
        assert_eq!(links(PAGE), [(3, "docs/a.md#b"), (3, "#c")]);
        assert_eq!(anchors(PAGE), ["ttl-how-long"]);
    }
}
