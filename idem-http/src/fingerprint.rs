//! What makes two HTTP requests the same request (IDEM-3).
//!
//! Owns the schemes, each named by a number in the stored fingerprint; golden digests in the tests freeze them. Lengths
//! and numbers are eight bytes, big-endian; "preceded by its length" keeps two requests from hashing the same bytes.
//!
//! | scheme | SHA-256 of |
//! |---|---|
//! | 0 | nothing: such a request is not compared |
//! | 1 | method, path with query, media type and content encoding, each preceded by its length; a byte; the body. The byte is 1 for a multipart body and 0 for any other. Of a multipart body, the delimiters are left out, and behind the rest come the SHA-256 of the lengths of what stood between them, and their number. |
//! | 2 | method and query, each preceded by its length; where a route matched, a byte 0, the number of path parameters and the value of each, preceded by its length; where none did, a byte 1 and the path, preceded by its length; the serde form of the attribute's expression, as JSON without white space and with the members of maps sorted |
//! | 0x80 and above | the same as above, by HMAC with the application's key: [`FingerprintKey`] |
//!
//! Other request headers are left out, because a retry may come through another proxy. Two fingerprints of different schemes
//! cannot be compared, so they are never taken for different requests.

mod checked;
mod keyed;

use std::borrow::Cow;
use std::fmt;

use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Uri};
use idem_core::Fingerprint;
use memchr::memmem::Finder;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

pub use self::checked::check_numbers;
pub use self::keyed::FingerprintKey;

const REQUEST: u8 = 1;
const VALUE: u8 = 2;

/// The path of a request whose value is compared.
pub enum ComparedPath<'a> {
    /// Where a route matched: how many path parameters there are, and their values.
    Parameters(usize, &'a mut dyn Iterator<Item = &'a str>),
    /// Where none did: all of it, from the request's address.
    Whole,
}

impl fmt::Debug for ComparedPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ComparedPath").finish_non_exhaustive()
    }
}

/// Scheme 2, of a value that the application names.
pub fn of_value(method: &Method, uri: &Uri, path: ComparedPath<'_>, mut value: Value) -> Fingerprint {
    let mut hash = Sha256::new();
    part(&mut hash, method.as_str().as_bytes());
    part(&mut hash, uri.query().unwrap_or_default().as_bytes());
    match path {
        ComparedPath::Parameters(count, values) => {
            hash.update([0]);
            hash.update((count as u64).to_be_bytes());
            // Not their names: a route may call them otherwise tomorrow.
            for value in values {
                part(&mut hash, value.as_bytes());
            }
        }
        ComparedPath::Whole => {
            hash.update([1]);
            part(&mut hash, uri.path().as_bytes());
        }
    }
    // Maps are sorted already, unless the application turned on serde_json's `preserve_order`.
    value.sort_all_objects();
    hash.update(value.to_string());
    Fingerprint::new(VALUE, hash.finalize().into())
}

/// Scheme 1, of a request whose body has come to its end.
#[must_use]
pub fn of_request(digest: [u8; 32]) -> Fingerprint {
    Fingerprint::new(REQUEST, digest)
}

/// Scheme 1, of a request whose body was not read to its end. No whole request has this fingerprint.
#[must_use]
pub fn of_incomplete_request(digest: [u8; 32]) -> Fingerprint {
    let mut hash = Sha256::new();
    hash.update(b"incomplete");
    hash.update(digest);
    Fingerprint::new(REQUEST, hash.finalize().into())
}

fn part(hash: &mut Sha256, bytes: &[u8]) {
    hash.update((bytes.len() as u64).to_be_bytes());
    hash.update(bytes);
}

/// Scheme 1 of a request whose body is still coming.
pub struct RequestHash {
    hash: Sha256,
    multipart: Option<Box<Multipart>>,
}

impl fmt::Debug for RequestHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestHash").finish_non_exhaustive()
    }
}

impl RequestHash {
    /// Of all but the body.
    #[must_use]
    pub fn new(method: &Method, uri: &Uri, headers: &HeaderMap) -> Self {
        let content_type = headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
        let (media_type, parameters) = split_once(content_type, b';');
        let media_type = lower_case(media_type.trim_ascii());
        let target = uri.path_and_query().map_or("", |target| target.as_str());
        let mut hash = Sha256::new();
        part(&mut hash, method.as_str().as_bytes());
        part(&mut hash, target.as_bytes());
        part(&mut hash, &media_type);
        part(&mut hash, &encoding(headers));
        let multipart = boundary(&media_type, parameters).map(|boundary| Box::new(Multipart::new(boundary)));
        hash.update([u8::from(multipart.is_some())]);
        Self { hash, multipart }
    }

    /// Takes in the next bytes of the body.
    pub fn update(&mut self, data: &[u8]) {
        match &mut self.multipart {
            Some(multipart) => multipart.update(&mut self.hash, data),
            None => self.hash.update(data),
        }
    }

    /// The digest of what was taken in.
    #[must_use]
    pub fn finish(mut self) -> [u8; 32] {
        if let Some(multipart) = self.multipart {
            multipart.finish(&mut self.hash);
        }
        self.hash.finalize().into()
    }
}

/// A multipart body on its way: what stands between its delimiters is hashed.
///
/// The boundary itself is drawn anew each time a client encodes the form, so with it no honest retry would ever be equal.
struct Multipart {
    /// With the line break before it: elsewhere than at the beginning of a line it is a part's own content.
    delimiter: Finder<'static>,
    /// The last bytes that may be the beginning of a delimiter.
    unseen: Vec<u8>,
    /// How long the piece is that is being hashed.
    piece: u64,
    pieces: u64,
    lengths: Sha256,
}

impl Multipart {
    fn new(boundary: &[u8]) -> Self {
        Self {
            delimiter: Finder::new(&[b"\r\n--", boundary].concat()).into_owned(),
            // So that a body may begin with a delimiter.
            unseen: b"\r\n".to_vec(),
            piece: 0,
            pieces: 0,
            lengths: Sha256::new(),
        }
    }

    fn update(&mut self, hash: &mut Sha256, data: &[u8]) {
        let mut unseen = std::mem::take(&mut self.unseen);
        unseen.extend_from_slice(data);
        let delimiter_len = self.delimiter.needle().len();
        let mut start = 0;
        while let Some(at) = self.delimiter.find(&unseen[start..]) {
            hash.update(&unseen[start..start + at]);
            self.piece += at as u64;
            self.end_piece();
            start += at + delimiter_len;
        }
        let sure = start.max((unseen.len() + 1).saturating_sub(delimiter_len));
        hash.update(&unseen[start..sure]);
        self.piece += (sure - start) as u64;
        unseen.drain(..sure);
        self.unseen = unseen;
    }

    fn end_piece(&mut self) {
        self.lengths.update(self.piece.to_be_bytes());
        self.piece = 0;
        self.pieces += 1;
    }

    fn finish(mut self, hash: &mut Sha256) {
        hash.update(&self.unseen);
        self.piece += self.unseen.len() as u64;
        self.end_piece();
        hash.update(self.lengths.finalize());
        hash.update(self.pieces.to_be_bytes());
    }
}

/// The codings of a body in lower case, separated by commas; nothing where it has none.
fn encoding(headers: &HeaderMap) -> Vec<u8> {
    let mut codings = Vec::new();
    let lines = headers.get_all(CONTENT_ENCODING).iter();
    let listed = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    for coding in listed.map(|coding| coding.trim_ascii().to_ascii_lowercase()) {
        if coding.is_empty() || coding == b"identity" {
            continue;
        }
        if !codings.is_empty() {
            codings.push(b',');
        }
        codings.extend(coding);
    }
    codings
}

/// The boundary of a multipart body.
fn boundary<'a>(media_type: &[u8], mut parameters: &'a [u8]) -> Option<&'a [u8]> {
    if !media_type.starts_with(b"multipart/") {
        return None;
    }
    while !parameters.is_empty() {
        let (parameter, rest) = split_once(parameters, b';');
        let (name, value) = split_once(parameter, b'=');
        if name.trim_ascii().eq_ignore_ascii_case(b"boundary") {
            let value = value.trim_ascii();
            let unquoted = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
            return Some(unquoted.unwrap_or(value)).filter(|boundary| !boundary.is_empty());
        }
        parameters = rest;
    }
    None
}

/// Copied only where it is not in lower case already, as nearly all clients send it.
fn lower_case(text: &[u8]) -> Cow<'_, [u8]> {
    if text.iter().any(u8::is_ascii_uppercase) {
        return Cow::Owned(text.to_ascii_lowercase());
    }
    Cow::Borrowed(text)
}

/// What comes before the first `separator`, and what comes after it.
fn split_once(bytes: &[u8], separator: u8) -> (&[u8], &[u8]) {
    match memchr::memchr(separator, bytes) {
        Some(at) => (&bytes[..at], &bytes[at + 1..]),
        None => (bytes, b""),
    }
}

#[cfg(test)]
mod tests;
