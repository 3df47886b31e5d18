//! One GET request, and whether its failure may pass.

use std::io::Read;
use std::time::Duration;

use ureq::http::{HeaderMap, Response};
use ureq::{Agent, Body, Proxy};

/// How long a server may be silent and how often it is asked again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Until a connection stands.
    pub connect: Duration,
    /// Between two pieces of an answer.
    pub silence: Duration,
    /// Tries after the first one that bring nothing new, at most two before anything came. A try that brings bytes starts the
    /// count again.
    pub retries: u32,
    /// Before the first retry; each further one waits twice as long.
    pub first_pause: Duration,
}

impl Patience {
    /// 10 s for a connection and between pieces, five retries after 1, 2, 4, 8 and 16 s.
    pub const STANDARD: Patience = Patience {
        connect: Duration::from_secs(10),
        silence: Duration::from_secs(10),
        retries: 5,
        first_pause: Duration::from_secs(1),
    };
}

/// Why there is no answer, or none of use.
#[derive(Debug)]
pub(crate) enum HttpError {
    /// Worth another try.
    Passing(String),
    /// The same again would fail the same way.
    Lasting(String),
}

/// What a server says of the version of a file it has.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Version {
    pub(crate) etag: Option<String>,
    pub(crate) last_modified: Option<String>,
}

impl Version {
    /// What `If-Range` may say: only a strong tag promises the same bytes.
    pub(crate) fn if_range(&self) -> Option<&str> {
        let strong = self.etag.as_deref().filter(|etag| !etag.starts_with("W/"));
        strong.or(self.last_modified.as_deref())
    }
}

/// The beginning of an answer.
pub(crate) struct Answer {
    /// Where in the file its body begins; 0 where the server did not follow the wish for a range.
    pub(crate) first_byte: u64,
    /// Length of the whole file, where the server says it.
    pub(crate) total: Option<u64>,
    /// Which file.
    pub(crate) version: Version,
    /// The bytes. An error of this reader may pass.
    pub(crate) body: Box<dyn Read>,
}

/// A client that follows redirects, never from HTTPS to less.
pub(crate) struct Http {
    agent: Agent,
    /// For HTTPS only: a plain address is a server of one's own, and near.
    proxy: Option<Proxy>,
}

impl Http {
    /// A client behind a proxy, if one is named.
    pub(crate) fn new(proxy: Option<&str>, patience: Patience) -> Result<Self, HttpError> {
        let proxy = proxy.map(Proxy::new).transpose();
        let proxy = proxy.map_err(|error| HttpError::Lasting(format!("the proxy's address is none: {error}")))?;
        let config = Agent::config_builder()
            // Not from the environment, where the client would look by itself.
            .proxy(None)
            .user_agent(concat!("twoview/", env!("CARGO_PKG_VERSION")))
            // The file's own bytes: a server that compressed them on the way would have ranges of something else.
            .accept_encoding("identity")
            .http_status_as_error(false)
            .timeout_resolve(Some(patience.connect))
            .timeout_connect(Some(patience.connect))
            .timeout_recv_response(Some(patience.silence))
            .timeout_per_read(Some(patience.silence))
            .build();
        Ok(Self { agent: config.into(), proxy })
    }

    /// Asks for a file from `first_byte` on, as far as it is still `version`.
    pub(crate) fn get(&self, url: &str, first_byte: u64, version: &Version) -> Result<Answer, HttpError> {
        let is_https = url.starts_with("https://");
        let proxy = self.proxy.clone().filter(|_| is_https);
        let mut request = self.agent.get(url).config().https_only(is_https).proxy(proxy).build();
        if first_byte > 0 {
            request = request.header("range", format!("bytes={first_byte}-"));
            if let Some(version) = version.if_range() {
                request = request.header("if-range", version);
            }
        }
        let response = request.call().map_err(|error| sorted(&error))?;
        answer(response, first_byte)
    }
}

fn answer(response: Response<Body>, wanted: u64) -> Result<Answer, HttpError> {
    let status = response.status();
    let headers = response.headers();
    let version = Version { etag: text(headers, "etag"), last_modified: text(headers, "last-modified") };
    let number = |name| text(headers, name).and_then(|text| text.trim().parse::<u64>().ok());
    let (first_byte, total) = match status.as_u16() {
        200 => (0, number("content-length")),
        206 => {
            let range = text(headers, "content-range").unwrap_or_default();
            let Some((first_byte, total)) = content_range(&range).filter(|(first_byte, _)| *first_byte == wanted)
            else {
                let message = format!("the server answered the wish for bytes from {wanted} on with `{range}`");
                return Err(HttpError::Lasting(message));
            };
            (first_byte, total)
        }
        // Asked for what lies behind the end: the file has become shorter. The caller sees a total that differs.
        416 if wanted > 0 => {
            let total = text(headers, "content-range").and_then(|range| range.strip_prefix("bytes */")?.parse().ok());
            return Ok(Answer {
                first_byte: wanted,
                total: total.or(Some(0)),
                version,
                body: Box::new(std::io::empty()),
            });
        }
        code => {
            let message = format!("the server answered {status}");
            let passing = matches!(code, 408 | 425 | 429 | 500 | 502 | 503 | 504);
            return Err(if passing { HttpError::Passing(message) } else { HttpError::Lasting(message) });
        }
    };
    Ok(Answer { first_byte, total, version, body: Box::new(response.into_body().into_reader()) })
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

/// First byte and length of the whole from `bytes 100-199/200`; the length may be `*`.
fn content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first_byte, _) = range.split_once('-')?;
    Some((first_byte.trim().parse().ok()?, total.trim().parse().ok()))
}

/// Certificates, addresses and too many redirects stay what they are; connections come back.
fn sorted(error: &ureq::Error) -> HttpError {
    use ureq::Error as E;
    let message = error.to_string();
    match error {
        E::Io(_)
        | E::Timeout(_)
        | E::HostNotFound
        | E::ConnectionFailed
        | E::Protocol(_)
        | E::ConnectProxyFailed(_) => HttpError::Passing(message),
        _ => HttpError::Lasting(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges_are_read() {
        assert_eq!(content_range("bytes 100-199/200"), Some((100, Some(200))));
        assert_eq!(content_range("bytes 0-0/*"), Some((0, None)));
        for wrong in ["", "bytes", "bytes 1/2", "bytes -1-2/3", "lines 1-2/3", "bytes */200"] {
            assert_eq!(content_range(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_weak_tag_promises_nothing() {
        let weak = Version { etag: Some("W/\"1\"".to_owned()), last_modified: None };
        assert_eq!(weak.if_range(), None);
        let strong = Version { etag: Some("\"1\"".to_owned()), last_modified: Some("today".to_owned()) };
        assert_eq!(strong.if_range(), Some("\"1\""));
    }
}
