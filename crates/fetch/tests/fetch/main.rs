//! Fetching from a server that drops, changes, redirects, stalls and lies, and archives that try to get out.

mod archives;
mod http_server;
mod unpacking;

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use archives::{good_archive, recipe_for, sha256};
use http_server::{HttpServer, Reply, Request};
use tempfile::TempDir;
use twoview_fetch::{DownloadError, Event, FetchConfig, FetchError, Fetched, Patience, Recipe, fetch};

const FAST: Patience = Patience {
    connect: Duration::from_secs(5),
    silence: Duration::from_millis(400),
    retries: 2,
    first_pause: Duration::from_millis(5),
};

/// One folder to fetch into, and everything that was said.
struct Place {
    root: TempDir,
    events: Vec<Event>,
    mirror: Option<String>,
}

impl Place {
    fn new() -> Self {
        Self { root: tempfile::tempdir().expect("a temporary folder"), events: Vec::new(), mirror: None }
    }

    fn dest(&self) -> PathBuf {
        self.root.path().join("set")
    }

    fn part(&self, name: &str) -> PathBuf {
        self.root.path().join("set.part").join(name)
    }

    fn fetch(&mut self, recipe: &Recipe) -> Result<Fetched, FetchError> {
        let config = FetchConfig { mirror: self.mirror.clone(), proxy: None, patience: FAST };
        let (dest, events) = (self.dest(), &mut self.events);
        events.clear();
        fetch(recipe, &dest, &config, &AtomicBool::new(false), &mut |event| events.push(event))
    }

    #[track_caller]
    fn check_whole(&self, archive: &[u8]) {
        let noise = fs::read(self.dest().join("set/train/a/noise.bin")).expect("unpacked");
        assert_eq!(good_archive(noise.len()), archive);
        let names = fs::read_dir(self.dest().join("set/test/a")).expect("unpacked");
        assert_eq!(names.count(), 2, "the short and the long name");
        assert!(!self.root.path().join("set.part").exists(), "nothing is left beside it");
    }

    fn started_over(&self) -> Vec<&str> {
        fn reason(event: &Event) -> Option<&str> {
            if let Event::StartedOver { reason } = event { Some(reason) } else { None }
        }
        self.events.iter().filter_map(reason).collect()
    }

    fn retries(&self) -> usize {
        self.events.iter().filter(|event| matches!(event, Event::Retrying { .. })).count()
    }
}

const NOISE: usize = 300_000;

#[test]
fn a_set_is_fetched_once() {
    let archive = good_archive(NOISE);
    let server = HttpServer::start({
        let archive = archive.clone();
        move |request| Reply::ranged(request, &archive, "\"1\"")
    });
    let recipe = recipe_for(&archive, &[server.url("set.tar.gz")]);
    let mut place = Place::new();
    // An empty folder is as good as none.
    fs::create_dir(place.dest()).expect("made");
    let fetched = place.fetch(&recipe).expect("fetched");
    assert_eq!((fetched.was_there, fetched.files, fetched.received), (false, 3, archive.len() as u64));
    place.check_whole(&archive);
    assert_eq!((place.retries(), place.started_over().len()), (0, 0));
    let last = |wanted: fn(&Event) -> bool| place.events.iter().rfind(|event| wanted(event)).cloned();
    let total = archive.len() as u64;
    assert_eq!(
        last(|event| matches!(event, Event::Downloading { .. })),
        Some(Event::Downloading { done: total, total })
    );

    let again = place.fetch(&recipe).expect("there");
    assert_eq!((again.was_there, again.files, again.bytes, again.received), (true, 3, fetched.bytes, 0));
    assert_eq!(server.requests().len(), 1, "nothing is asked for twice");
}

#[test]
fn what_lies_there_is_never_touched() {
    let archive = good_archive(1000);
    let server = HttpServer::start({
        let archive = archive.clone();
        move |_| Reply::whole(&archive)
    });
    let recipe = recipe_for(&archive, &[server.url("set.tar.gz")]);
    let mut place = Place::new();
    fs::create_dir(place.dest()).expect("made");
    fs::write(place.dest().join("mine.txt"), b"mine").expect("written");
    assert!(matches!(place.fetch(&recipe), Err(FetchError::Occupied { .. })));
    assert_eq!(fs::read(place.dest().join("mine.txt")).expect("there"), b"mine");
    fs::remove_dir_all(place.dest()).expect("removed");

    fs::write(place.dest(), b"a file").expect("written");
    assert!(matches!(place.fetch(&recipe), Err(FetchError::Occupied { .. })));
    fs::remove_file(place.dest()).expect("removed");

    place.fetch(&recipe).expect("fetched");
    // A set of another archive is not this one.
    let mut other = recipe.clone();
    other.archive.sha256 = "0".repeat(64);
    assert!(matches!(place.fetch(&other), Err(FetchError::Occupied { .. })));
    // A changed byte, then a missing file.
    let file = place.dest().join("set/test/a/one.txt");
    fs::write(&file, b"One\n").expect("written");
    let changed = place.fetch(&recipe).expect_err("changed");
    assert!(matches!(&changed, FetchError::Damaged { file, .. } if file == "set/test/a/one.txt"), "{changed}");
    fs::remove_file(&file).expect("removed");
    assert!(matches!(place.fetch(&recipe), Err(FetchError::Damaged { .. })));
    fs::write(place.dest().join(".sha256sums"), b"\xff\n").expect("written");
    assert!(matches!(place.fetch(&recipe), Err(FetchError::Damaged { .. })));
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn a_dropped_connection_is_resumed_where_it_broke() {
    let archive = good_archive(NOISE);
    let server = HttpServer::start({
        let archive = archive.clone();
        move |request| match request.number {
            // Every try but the last brings something, which is more tries than are allowed to bring nothing.
            0..5 => Reply::ranged(request, &archive, "\"1\"").cut_at(50_000),
            _ => Reply::ranged(request, &archive, "\"1\""),
        }
    });
    let mut place = Place::new();
    let fetched = place.fetch(&recipe_for(&archive, &[server.url("set.tar.gz")])).expect("fetched");
    place.check_whole(&archive);
    assert_eq!(fetched.received, archive.len() as u64, "no byte came twice");
    assert_eq!(place.retries(), 5);
    let ranges: Vec<_> = server.requests().iter().map(Request::first_byte).collect();
    assert_eq!(ranges, [None, Some(50_000), Some(100_000), Some(150_000), Some(200_000), Some(250_000)]);
    assert_eq!(server.requests()[1].headers.get("if-range").map(String::as_str), Some("\"1\""));
}

#[test]
fn a_later_call_goes_on_with_what_an_earlier_one_left() {
    let archive = good_archive(NOISE);
    let server = HttpServer::start({
        let archive = archive.clone();
        move |request| match request.number {
            0 => Reply::ranged(request, &archive, "\"1\"").cut_at(120_000),
            1..4 => Reply::status("503 Service Unavailable", b""),
            _ => Reply::ranged(request, &archive, "\"1\""),
        }
    });
    let recipe = recipe_for(&archive, &[server.url("set.tar.gz")]);
    let mut place = Place::new();
    let error = place.fetch(&recipe).expect_err("three tries without a byte");
    assert!(matches!(&error, FetchError::Download(DownloadError::GaveUp { done: 120_000, .. })), "{error}");
    assert!(!place.dest().exists(), "complete or absent");
    let fetched = place.fetch(&recipe).expect("fetched");
    assert_eq!(fetched.received, archive.len() as u64 - 120_000);
    place.check_whole(&archive);
}

#[test]
fn a_stop_leaves_something_to_go_on_with() {
    let archive = good_archive(NOISE);
    let server = HttpServer::start({
        let archive = archive.clone();
        move |request| Reply::ranged(request, &archive, "\"1\"")
    });
    let recipe = recipe_for(&archive, &[server.url("set.tar.gz")]);
    let mut place = Place::new();
    // Stopped in turn while downloading, hashing and unpacking; each call after that goes on.
    let wanted: [fn(&Event) -> bool; 3] = [
        |event| matches!(event, Event::Downloading { done, .. } if *done > 0),
        |event| matches!(event, Event::Verifying { .. }),
        |event| matches!(event, Event::Unpacking { bytes, .. } if *bytes > 0),
    ];
    for (i, wanted) in wanted.into_iter().enumerate() {
        let stop = AtomicBool::new(false);
        let config = FetchConfig { mirror: None, proxy: None, patience: FAST };
        let stopped = fetch(&recipe, &place.dest(), &config, &stop, &mut |event| {
            stop.fetch_or(wanted(&event), std::sync::atomic::Ordering::Relaxed);
        });
        assert!(matches!(stopped, Err(FetchError::Download(DownloadError::Stopped))), "{i}: {stopped:?}");
        assert!(!place.dest().exists());
    }
    let fetched = place.fetch(&recipe).expect("fetched");
    assert_eq!(fetched.received, 0, "the archive was whole");
    assert_eq!(server.requests().len(), 2);
    place.check_whole(&archive);
}

#[test]
fn a_server_without_ranges_sends_the_whole_again() {
    let archive = good_archive(NOISE);
    let server = HttpServer::start({
        let archive = archive.clone();
        move |request| match request.number {
            0 => Reply::whole(&archive).cut_at(50_000),
            _ => Reply::whole(&archive),
        }
    });
    let mut place = Place::new();
    let fetched = place.fetch(&recipe_for(&archive, &[server.url("set.tar.gz")])).expect("fetched");
    assert_eq!(fetched.received, archive.len() as u64 + 50_000);
    assert_eq!(place.started_over(), ["the server cannot send a part of the file"]);
    place.check_whole(&archive);
}

#[test]
fn a_file_that_changed_on_the_server_is_not_continued() {
    let archive = good_archive(NOISE);
    let old = good_archive(NOISE).iter().map(|byte| !byte).collect::<Vec<_>>();
    // One server honours If-Range; the other ignores it and sends a part of the new file, with its new tag.
    for honest in [true, false] {
        let server = HttpServer::start({
            let (archive, old) = (archive.clone(), old.clone());
            move |request| match request.number {
                0 => Reply::ranged(request, &old, "\"old\"").cut_at(50_000),
                _ if honest => Reply::ranged(request, &archive, "\"new\""),
                _ => {
                    let mut request = request.clone();
                    request.headers.remove("if-range");
                    Reply::ranged(&request, &archive, "\"new\"")
                }
            }
        });
        let mut place = Place::new();
        place.fetch(&recipe_for(&archive, &[server.url("set.tar.gz")])).expect("fetched");
        assert_eq!(place.started_over(), ["the file on the server has changed since"], "honest: {honest}");
        place.check_whole(&archive);
    }
}

#[test]
fn a_checksum_that_is_wrong_after_resuming_gets_a_second_chance() {
    let archive = good_archive(NOISE);
    let old = good_archive(NOISE).iter().map(|byte| !byte).collect::<Vec<_>>();
    // The server never says which version it has.
    let untagged = |request: &Request, file: &[u8]| {
        let mut reply = Reply::ranged(request, file, "");
        reply.headers.retain(|(name, _)| name != "etag");
        reply
    };
    let server = HttpServer::start({
        let archive = archive.clone();
        move |request| match request.number {
            0 => untagged(request, &old).cut_at(50_000),
            _ => untagged(request, &archive),
        }
    });
    let mut place = Place::new();
    place.fetch(&recipe_for(&archive, &[server.url("set.tar.gz")])).expect("fetched");
    assert_eq!(place.started_over(), ["the checksum of the resumed download is wrong"]);
    place.check_whole(&archive);
}

#[test]
fn bytes_without_a_note_and_too_many_bytes_are_dropped() {
    let archive = good_archive(1000);
    let server = HttpServer::start({
        let archive = archive.clone();
        move |request| Reply::ranged(request, &archive, "\"1\"")
    });
    let recipe = recipe_for(&archive, &[server.url("set.tar.gz")]);
    let url = server.url("set.tar.gz");
    let notes = [
        (None, 10, "no note"),
        (Some("{".to_owned()), 10, "no note"),
        (
            Some(r#"{"url":"http://elsewhere/set.tar.gz","version":{"etag":null,"last_modified":null}}"#.to_owned()),
            10,
            "elsewhere",
        ),
        (Some(format!(r#"{{"url":"{url}","version":{{"etag":null,"last_modified":null}}}}"#)), 5000, "more than"),
    ];
    for (note, len, why) in notes {
        let mut place = Place::new();
        fs::create_dir(place.part("")).expect("made");
        fs::write(place.part("set.tar.gz.part"), vec![7; len]).expect("written");
        if let Some(note) = note {
            fs::write(place.part("set.tar.gz.part.json"), note).expect("written");
        }
        place.fetch(&recipe).expect("fetched");
        assert!(place.started_over()[0].contains(why), "{:?}", place.started_over());
        place.check_whole(&archive);
    }
}

#[test]
fn a_wrong_archive_is_named_and_never_unpacked() {
    let archive = good_archive(1000);
    let wrong: Vec<u8> = archive.iter().map(|byte| !byte).collect();
    let server = HttpServer::start({
        let wrong = wrong.clone();
        move |_| Reply::whole(&wrong)
    });
    let recipe = recipe_for(&archive, &[server.url("set.tar.gz")]);
    let mut place = Place::new();
    let error = place.fetch(&recipe).expect_err("another file");
    let said = error.to_string();
    assert!(matches!(error, FetchError::WrongChecksum { .. }), "{said}");
    assert!(said.contains(&sha256(&wrong)) && said.contains(&sha256(&archive)), "{said}");
    assert!(!place.dest().exists() && !place.part("files").exists() && !place.part("set.tar.gz.part").exists());

    let shorter = HttpServer::start(|_| Reply::whole(b"short"));
    let error = place.fetch(&recipe_for(&archive, &[shorter.url("set.tar.gz")])).expect_err("another length");
    assert!(matches!(error, FetchError::Download(DownloadError::WrongLength { got: 5, .. })), "{error}");
}

#[test]
fn a_second_address_is_asked_when_the_first_one_fails_for_good() {
    let archive = good_archive(1000);
    let gone = HttpServer::start(|_| Reply::status("404 Not Found", b"no"));
    let there = HttpServer::start({
        let archive = archive.clone();
        move |_| Reply::whole(&archive)
    });
    let mut place = Place::new();
    let error = place.fetch(&recipe_for(&archive, &[gone.url("set.tar.gz")])).expect_err("nothing there");
    assert!(error.to_string().contains("404") && error.to_string().contains("/set.tar.gz"), "{error}");
    assert_eq!(gone.requests().len(), 1, "a 404 is not asked again");
    assert!(!place.part("").exists(), "nothing came, so nothing is left");
    let recipe = recipe_for(&archive, &[gone.url("set.tar.gz"), there.url("set.tar.gz")]);
    place.fetch(&recipe).expect("fetched");
    assert!(place.events.iter().any(|event| matches!(event, Event::NextAddress { .. })));
    place.check_whole(&archive);
}

#[test]
fn a_mirror_stands_in_for_every_address_and_redirects_are_followed() {
    let archive = good_archive(NOISE);
    let server = HttpServer::start({
        let archive = archive.clone();
        move |request| match request.path.as_str() {
            "/mirror/set.tar.gz" => Reply::status("302 Found", b"").with("location", "/deep/other-name"),
            "/deep/other-name" if request.number == 1 => Reply::ranged(request, &archive, "\"1\"").cut_at(50_000),
            "/deep/other-name" => Reply::ranged(request, &archive, "\"1\""),
            _ => Reply::status("404 Not Found", b""),
        }
    });
    let mut place = Place::new();
    place.mirror = Some(server.url("mirror/"));
    place.fetch(&recipe_for(&archive, &["https://example.invalid/set.tar.gz".to_owned()])).expect("fetched");
    place.check_whole(&archive);
    assert_eq!(server.requests()[3].first_byte(), Some(50_000), "the wish for a range is redirected too");

    // Round and round is a failure, not a loop.
    let endless = HttpServer::start(|_| Reply::status("302 Found", b"").with("location", "/set.tar.gz"));
    let error = Place::new().fetch(&recipe_for(&archive, &[endless.url("set.tar.gz")])).expect_err("no end");
    assert!(matches!(error, FetchError::Download(DownloadError::Refused { .. })), "{error}");
    assert!(endless.requests().len() < 20);
}

#[test]
fn silence_is_given_up_on() {
    let archive = good_archive(1000);
    let server = HttpServer::start(|_| Reply::whole(b"").after(Duration::from_secs(20)));
    let begun = Instant::now();
    let error = Place::new().fetch(&recipe_for(&archive, &[server.url("set.tar.gz")])).expect_err("silence");
    assert!(matches!(error, FetchError::Download(DownloadError::GaveUp { tries: 3, .. })), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());

    // A server that falls silent in the middle is left, and what it sent is kept.
    let archive = good_archive(NOISE);
    let server = HttpServer::start({
        let archive = archive.clone();
        move |request| match request.number {
            0 => Reply::ranged(request, &archive, "\"1\"").cut_at(50_000).stalling(Duration::from_secs(20)),
            _ => Reply::ranged(request, &archive, "\"1\""),
        }
    });
    let mut place = Place::new();
    let fetched = place.fetch(&recipe_for(&archive, &[server.url("set.tar.gz")])).expect("fetched");
    assert_eq!((fetched.received, place.retries()), (archive.len() as u64, 1));
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());

    // Nobody listens at all.
    let nobody = {
        let server = HttpServer::start(|_| Reply::whole(b""));
        server.url("set.tar.gz")
    };
    let error = Place::new().fetch(&recipe_for(&archive, &[nobody])).expect_err("nobody");
    assert!(matches!(error, FetchError::Download(DownloadError::GaveUp { .. })), "{error}");
}

#[test]
fn two_fetches_do_not_share_a_folder() {
    let archive = good_archive(1000);
    let server = HttpServer::start({
        let archive = archive.clone();
        move |_| Reply::whole(&archive)
    });
    let recipe = recipe_for(&archive, &[server.url("set.tar.gz")]);
    let mut place = Place::new();
    fs::create_dir(place.part("")).expect("made");
    let lock = fs::File::create(place.part("lock")).expect("made");
    lock.lock().expect("nobody holds it");
    assert!(matches!(place.fetch(&recipe), Err(FetchError::Busy { .. })));
    drop(lock);
    place.fetch(&recipe).expect("fetched");
}

#[test]
fn a_recipe_must_fit_its_archive() {
    let archive = good_archive(1000);
    let server = HttpServer::start({
        let archive = archive.clone();
        move |_| Reply::whole(&archive)
    });
    let mut recipe = recipe_for(&archive, &[server.url("set.tar.gz")]);
    recipe.layout.train = "set/elsewhere".to_owned();
    let mut place = Place::new();
    let error = place.fetch(&recipe).expect_err("no such folder");
    assert!(error.to_string().contains("set/elsewhere"), "{error}");
    recipe.layout.train = "set/train".to_owned();
    recipe.archive.unpacked.max_bytes = 100;
    assert!(matches!(place.fetch(&recipe), Err(FetchError::Unpack { .. })));
    assert!(!place.dest().exists());
    recipe.archive.sha256 = "short".to_owned();
    assert!(matches!(place.fetch(&recipe), Err(FetchError::Recipe(_))));
}
