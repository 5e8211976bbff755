//! The words of a `curl` command.
//!
//! Owns which of its options change what is compared. An option that it does not know is an error, because it could.

mod quoted;

use std::path::Path;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request};

use super::{append, has_scheme, target};
use crate::exit::Failure;
use crate::file;

const UNQUOTED: &str = "a quotation mark of the command is not closed";

/// The request that a `curl` command would send, as far as it is compared.
pub(super) fn of_curl(text: &[u8]) -> Result<Request<Bytes>, Failure> {
    let text = std::str::from_utf8(text).map_err(|error| Failure::usage("the command is no text").because(&error))?;
    // A line break at the end belongs to the file.
    if quoted::needs_shell(text.trim_end()) {
        let what = "only a shell can tell what this command is: write values in the place of variables such as $KEY, put the URL in \
                    quotation marks, and leave out what is behind ; & | < or >. A command that was copied for cmd has to be copied for bash";
        return Err(Failure::usage(what));
    }
    let text = quoted::without_ansi_quotes(&text.replace("\r\n", "\n")).ok_or_else(|| Failure::usage(UNQUOTED))?;
    let words = shell_words::split(&text).map_err(|error| Failure::usage(UNQUOTED).because(&error))?;
    let mut curl = Curl::default();
    let mut words = words.into_iter().skip(1);
    while let Some(word) = words.next() {
        let (flags, word) = without_flags(&word);
        curl.is_query |= flags.contains('G');
        curl.is_head |= flags.contains('I');
        if !word.is_empty() {
            curl.take(&word, &mut words)?;
        }
    }
    curl.request()
}

/// How a part of a body is added.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// As a field of a form, without the line breaks of its file.
    Stripped,
    /// As a field of a form.
    Field,
    /// As the rest of the JSON before it.
    Json,
}

/// What the words of a command have said so far.
#[derive(Default)]
struct Curl {
    method: Option<String>,
    url: Option<String>,
    /// Header lines. One without a value is taken out.
    lines: Vec<(String, Option<String>)>,
    body: Option<Vec<u8>>,
    is_json: bool,
    is_query: bool,
    is_head: bool,
}

/// Options that take a value and do not change what is compared.
const IGNORED_WITH_VALUE: [&str; 20] = [
    "-u",
    "--user",
    "-o",
    "--output",
    "-m",
    "--max-time",
    "--connect-timeout",
    "--retry",
    "--retry-delay",
    "--retry-max-time",
    "--cacert",
    "--cert",
    "--key",
    "-x",
    "--proxy",
    "-w",
    "--write-out",
    "--resolve",
    "-c",
    "--cookie-jar",
];
/// Options without a value that do not change what is compared.
const IGNORED: [&str; 21] = [
    "--compressed",
    "-s",
    "--silent",
    "-S",
    "--show-error",
    "-sS",
    "-v",
    "--verbose",
    "-i",
    "--include",
    "-k",
    "--insecure",
    "-L",
    "--location",
    "-f",
    "--fail",
    "--fail-with-body",
    "--http1.1",
    "--http2",
    "-g",
    "--globoff",
];

impl Curl {
    fn take(&mut self, word: &str, words: &mut impl Iterator<Item = String>) -> Result<(), Failure> {
        let (option, attached) = split_option(word);
        let mut value = || {
            let value = attached.map(str::to_owned).or_else(|| words.next());
            value.ok_or_else(|| Failure::usage(format!("curl's {option} has no value")))
        };
        match option {
            "-X" | "--request" => self.method = Some(value()?),
            "--url" if self.url.is_none() => self.url = Some(value()?),
            "--url" => return Err(Failure::usage("the command has a second URL")),
            "-H" | "--header" => {
                let line = value()?;
                match line.strip_prefix('@') {
                    Some(path) => self.lines_of_file(path)?,
                    None => self.header(&line)?,
                }
            }
            "-A" | "--user-agent" => self.line("user-agent", value()?),
            "-e" | "--referer" => self.line("referer", value()?),
            "-b" | "--cookie" => self.line("cookie", value()?),
            "-d" | "--data" | "--data-ascii" => self.add(&value()?, Form::Stripped)?,
            "--data-binary" => self.add(&value()?, Form::Field)?,
            "--data-raw" => self.append(value()?.into_bytes(), Form::Field),
            "--json" => {
                self.is_json = true;
                self.add(&value()?, Form::Json)?;
            }
            "-G" | "--get" => self.is_query = true,
            "-I" | "--head" => self.is_head = true,
            option if IGNORED_WITH_VALUE.contains(&option) => drop(value()?),
            option if IGNORED.contains(&option) => {}
            option if option.starts_with('-') && option.len() > 1 => {
                // Behind a short option there may be a password in the same word.
                let len = if option.starts_with("--") { option.len() } else { 2 };
                let shown: String = option.chars().take(len).collect();
                let text = format!(
                    "curl's option {shown} is not known here; leave it out if it changes neither header lines nor body"
                );
                return Err(Failure::usage(text));
            }
            url if self.url.is_none() => self.url = Some(url.to_owned()),
            _ => return Err(Failure::usage("the command has a second URL")),
        }
        Ok(())
    }

    /// `name: value`; `name:` takes a line out that `curl` would send by itself, and `name;` sends one without a value.
    fn header(&mut self, line: &str) -> Result<(), Failure> {
        if let Some((name, value)) = line.split_once(':') {
            self.lines.push((
                name.trim().to_owned(),
                Some(value.trim().to_owned()).filter(|value| !value.is_empty()),
            ));
            return Ok(());
        }
        let Some(name) = line.trim_end().strip_suffix(';') else {
            return Err(Failure::usage(
                "a value of curl's -H is not `name: value`, `name:`, `name;` or `@file`",
            ));
        };
        self.lines.push((name.trim().to_owned(), Some(String::new())));
        Ok(())
    }

    fn lines_of_file(&mut self, path: &str) -> Result<(), Failure> {
        let read = file::read(Path::new(path))?;
        String::from_utf8_lossy(&read)
            .lines()
            .filter(|line| !line.trim().is_empty())
            .try_for_each(|line| self.header(line))
    }

    fn line(&mut self, name: &str, value: String) {
        self.lines.push((name.to_owned(), Some(value)));
    }

    /// Adds to the body what follows `-d`: text, or the content of a file, from which `-d` takes out the line breaks.
    fn add(&mut self, text: &str, form: Form) -> Result<(), Failure> {
        let Some(path) = text.strip_prefix('@') else {
            self.append(text.as_bytes().to_vec(), form);
            return Ok(());
        };
        let mut read = file::read(Path::new(path))?;
        if form == Form::Stripped {
            read.retain(|byte| !matches!(byte, b'\r' | b'\n' | 0));
        }
        self.append(read, form);
        Ok(())
    }

    /// Parts of JSON follow one another, and all others are fields of a form.
    fn append(&mut self, text: Vec<u8>, form: Form) {
        match &mut self.body {
            Some(body) if form == Form::Json => body.extend(text),
            Some(body) => {
                body.push(b'&');
                body.extend(text);
            }
            None => self.body = Some(text),
        }
    }

    fn request(self) -> Result<Request<Bytes>, Failure> {
        let mut url = self.url.ok_or_else(|| Failure::usage("the command has no URL"))?;
        let mut body = self.body;
        if self.is_query
            && let Some(query) = body.take()
        {
            let plain = url.split('#').next().unwrap_or_default();
            let mark = if plain.contains('?') { '&' } else { '?' };
            url = format!("{plain}{mark}{}", String::from_utf8_lossy(&query));
        }
        let method = match (&self.method, &body) {
            (Some(method), _) => method.as_str(),
            (None, _) if self.is_head => "HEAD",
            (None, Some(_)) => "POST",
            (None, None) => "GET",
        };
        let mut request = Request::new(Bytes::new());
        let named = Method::from_bytes(method.as_bytes());
        *request.method_mut() = named
            .map_err(|error| Failure::usage("the command has a method that no request can have").because(&error))?;
        // Without a scheme, curl takes a URL for one of HTTP.
        let whole = if has_scheme(&url) { url } else { format!("http://{url}") };
        *request.uri_mut() = target(&whole)?;
        for (name, value) in &self.lines {
            if let Some(value) = value {
                append(&mut request, name, value.as_bytes())?;
            }
        }
        let is_taken_out = self
            .lines
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case("content-type"));
        if body.is_some() && !is_taken_out {
            let media_type = if self.is_json {
                "application/json"
            } else {
                "application/x-www-form-urlencoded"
            };
            request
                .headers_mut()
                .insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        }
        *request.body_mut() = body.unwrap_or_default().into();
        Ok(request)
    }
}

/// Takes options of one letter without a value off a word of several, such as `-fsSL` or `-vXPOST`, but for the last one.
fn without_flags(word: &str) -> (String, String) {
    let mut flags = String::new();
    let Some(letters) = word.strip_prefix('-').filter(|rest| !rest.starts_with('-')) else {
        return (flags, word.to_owned());
    };
    let mut rest = letters.chars();
    while rest.as_str().len() > 1 {
        let is_flag = |letter: char| letter == 'G' || letter == 'I' || IGNORED.contains(&format!("-{letter}").as_str());
        match rest.clone().next() {
            Some(letter) if is_flag(letter) => flags.extend(rest.next()),
            _ => break,
        }
    }
    (flags, format!("-{}", rest.as_str()))
}

/// An option, and the value that is written in the same word: `--url=…`, `-XPOST`.
fn split_option(word: &str) -> (&str, Option<&str>) {
    if word.starts_with("--") {
        return match word.split_once('=') {
            Some((option, value)) => (option, Some(value)),
            None => (word, None),
        };
    }
    let takes_value = ["-X", "-H", "-d", "-A", "-e", "-b", "-u", "-o", "-m", "-x", "-w", "-c"];
    match takes_value
        .iter()
        .find(|option| word.starts_with(**option) && word.len() > 2)
    {
        Some(_) => word
            .split_at_checked(2)
            .map_or((word, None), |(option, value)| (option, Some(value))),
        None => (word, None),
    }
}
