//! The page in a real browser, if there is one: `TWOVIEW_CHROMIUM`, or `chromium` on the path.
#![expect(clippy::print_stderr, clippy::cast_possible_truncation, reason = "a test with made values")]
#![expect(clippy::approx_constant, clippy::cast_precision_loss, clippy::cast_sign_loss, reason = "made values")]

mod sample;

use std::{
    env, fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use twoview_pixels::{DecodeOptions, Image, decode};
use twoview_report::{Report, Section, html};

fn chromium() -> Option<PathBuf> {
    let named = env::var_os("TWOVIEW_CHROMIUM").map(PathBuf::from);
    let found = named.into_iter().chain(["chromium".into(), "chromium-browser".into(), "google-chrome".into()]);
    found.into_iter().find(|path| Command::new(path).arg("--version").output().is_ok_and(|out| out.status.success()))
}

/// What the browser printed for a page: the document as it stands after its script, and its log.
fn visit(chromium: &Path, folder: &Path, page: &str, arguments: &[&str]) -> (String, String) {
    let file = folder.join("page.html");
    fs::write(&file, page).expect("a page");
    let output = Command::new(chromium)
        .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--force-color-profile=srgb"])
        .args(["--enable-logging=stderr", "--v=0", "--virtual-time-budget=4000", "--timeout=60000"])
        .arg(format!("--user-data-dir={}", folder.join("profile").display()))
        .args(arguments)
        .arg(format!("file://{}", file.display()))
        .output()
        .expect("the browser runs");
    (String::from_utf8_lossy(&output.stdout).into_owned(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Messages and uncaught exceptions of the page.
fn console(log: &str) -> Vec<&str> {
    log.lines().filter(|line| line.contains("CONSOLE")).collect()
}

#[test]
fn a_browser_draws_the_page_and_asks_for_nothing() {
    let Some(chromium) = chromium() else {
        eprintln!("skipped: no Chromium (set TWOVIEW_CHROMIUM, or put `chromium` on the path)");
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    // Whoever is asked for anything would be this; it hangs up on everybody.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let counter = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&counter);
    thread::spawn(move || listener.incoming().for_each(|_| _ = counted.fetch_add(1, Ordering::SeqCst)));
    let asked = || counter.swap(0, Ordering::SeqCst);

    let careless = format!("<!doctype html><img src=http://{address}/><script>throw new Error('seen')</script>");
    let (_, log) = visit(&chromium, folder.path(), &careless, &["--dump-dom"]);
    assert!(!console(&log).is_empty() && asked() > 0, "the checks below must be able to fail: {log}");

    let hostile = format!("</script><!--\u{2028}\"'><img src=http://{address}/ onerror=document.title='harmed'>");
    let mut report = sample::sample(600, sample::made_steps(400));
    report.name.clone_from(&hostile);
    report.config = Some(hostile.clone());
    report.classes[0].clone_from(&hostile);
    report.warnings.push(hostile.clone());
    if let Section::Present(map) = &mut report.map {
        map.pictures.iter_mut().for_each(|picture| picture.name.push_str(&hostile));
    }
    let page = html(&report).expect("a page");
    let (document, log) = visit(&chromium, folder.path(), &page, &["--dump-dom"]);
    assert!(console(&log).is_empty(), "{:#?}", console(&log));
    assert!(document.contains("data-drawn-ms="), "the script did not come to its end");
    assert!(!document.contains("<title>harmed"), "a name became code");
    assert_eq!(asked(), 0, "the page asked for something");

    // The map alone, so that the picture of the page shows it.
    let only_map = Report { map: report.map, classes: report.classes, ..Report::default() };
    let shot = folder.path().join("shot.png");
    let screenshot = format!("--screenshot={}", shot.display());
    let page = html(&only_map).expect("a page");
    let (_, log) = visit(&chromium, folder.path(), &page, &[&screenshot, "--window-size=1000,1000"]);
    assert!(console(&log).is_empty(), "{:#?}", console(&log));
    let shot = decode(&fs::read(&shot).expect("a screenshot"), &DecodeOptions::STANDARD).expect("a PNG");
    let colored = colored_pixels(&shot);
    assert!(colored > 2000, "only {colored} coloured pixels: the map is blank");
    assert_eq!(colored_pixels(&Image::default()), 0, "black is no colour");
}

fn colored_pixels(image: &Image) -> usize {
    let is_colored = |pixel: &&[u8]| {
        let (low, high) = (pixel.iter().min().expect("three"), pixel.iter().max().expect("three"));
        high - low > 60
    };
    image.as_rgb8().chunks_exact(3).filter(is_colored).count()
}
