//! A small HTTP server on this machine that misbehaves as it is told.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// What was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// How many requests came before this one.
    pub(crate) number: usize,
    pub(crate) path: String,
    /// By lower-case name.
    pub(crate) headers: BTreeMap<String, String>,
}

impl Request {
    /// The first byte of the range that was asked for.
    pub(crate) fn first_byte(&self) -> Option<usize> {
        self.headers.get("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }
}

/// What is answered.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Where the connection is dropped, short of the body's end.
    pub(crate) cut_at: Option<usize>,
    /// How long nothing happens before the first byte.
    pub(crate) silence: Duration,
    /// How long nothing happens after the last byte, with the connection still open.
    pub(crate) stall: Duration,
}

impl Reply {
    /// A whole file.
    pub(crate) fn whole(body: &[u8]) -> Self {
        Self::status("200 OK", body)
    }

    pub(crate) fn status(status: &str, body: &[u8]) -> Self {
        let headers = vec![("content-length".to_owned(), body.len().to_string())];
        let (silence, stall) = (Duration::ZERO, Duration::ZERO);
        Self { status: status.to_owned(), headers, body: body.to_owned(), cut_at: None, silence, stall }
    }

    /// As a server with ranges answers, of a file with this tag: a part if the client has the same file, else the whole.
    pub(crate) fn ranged(request: &Request, file: &[u8], etag: &str) -> Self {
        let same = request.headers.get("if-range").is_none_or(|tag| tag == etag);
        let reply = match request.first_byte().filter(|_| same) {
            Some(first) if first >= file.len() => {
                Self::status("416 Range Not Satisfiable", b"").with("content-range", &format!("bytes */{}", file.len()))
            }
            Some(first) => Self::status("206 Partial Content", &file[first..])
                .with("content-range", &format!("bytes {first}-{}/{}", file.len() - 1, file.len())),
            None => Self::whole(file),
        };
        reply.with("etag", etag)
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn cut_at(mut self, n: usize) -> Self {
        self.cut_at = Some(n);
        self
    }

    pub(crate) fn stalling(mut self, stall: Duration) -> Self {
        self.stall = stall;
        self
    }

    pub(crate) fn after(mut self, silence: Duration) -> Self {
        self.silence = silence;
        self
    }
}

/// Serves until it is dropped.
pub(crate) struct HttpServer {
    url: String,
    requests: Arc<Mutex<Vec<Request>>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl HttpServer {
    pub(crate) fn start(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let (requests, over) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let thread = thread::spawn({
            let (requests, over, answer) = (Arc::clone(&requests), Arc::clone(&over), Arc::new(answer));
            move || {
                for stream in listener.incoming() {
                    if over.load(Ordering::Relaxed) {
                        return;
                    }
                    let Ok(stream) = stream else { continue };
                    let (requests, answer) = (Arc::clone(&requests), Arc::clone(&answer));
                    // A connection that fails is the client's to notice.
                    thread::spawn(move || serve(stream, &requests, &*answer));
                }
            }
        });
        Self { url, requests, over, thread: Some(thread) }
    }

    /// The address of a file.
    pub(crate) fn url(&self, file: &str) -> String {
        format!("{}/{file}", self.url)
    }

    /// Everything that was asked for so far.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().expect("no panic in the server").clone()
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        // Wakes the listener, which then sees that it is over.
        let _ = TcpStream::connect(self.url.trim_start_matches("http://"));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(
    mut stream: TcpStream,
    requests: &Mutex<Vec<Request>>,
    answer: &dyn Fn(&Request) -> Reply,
) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut headers = BTreeMap::new();
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.insert(name.trim().to_lowercase(), value.trim().to_owned());
    }
    let request = {
        let mut requests = requests.lock().expect("no panic in the server");
        let request = Request { number: requests.len(), path, headers };
        requests.push(request.clone());
        request
    };
    let reply = answer(&request);
    thread::sleep(reply.silence);
    let mut head = format!("HTTP/1.1 {}\r\nconnection: close\r\n", reply.status);
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    stream.write_all(&reply.body[..reply.cut_at.unwrap_or(reply.body.len())])?;
    stream.flush()?;
    thread::sleep(reply.stall);
    Ok(())
}
