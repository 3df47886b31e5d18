//! The text of the page: complete, harmless, and small however long the run.

use twoview_pixels::Image;
use twoview_report::{
    EmbeddingMap, EventFile, Fact, GalleryRow, MapPicture, Pair, PairList, Picture, Projection, Reference, Report,
    Rung, ScoreLadder, Section, StepRow, figures, html,
};

/// Ends a script, opens a comment, breaks out of an attribute, and holds signs that end a line of a script.
const HOSTILE: &str = "</script><img onerror=\"alert(1)\" src='x'><!-- \u{2028}\u{202e}&amp;\0";

fn picture() -> Picture {
    Picture { name: HOSTILE.into(), class: Some(0), image: Image::filled(40, 20, [9, 200, 30]).expect("a valid size") }
}

/// Hostile words wherever words go.
fn hostile() -> Report {
    let fact = Fact::new(HOSTILE, HOSTILE);
    let on_map = MapPicture {
        name: HOSTILE.into(),
        class: Some(0),
        cluster: Some(3),
        thumbnail: picture().image,
        neighbours: Vec::new(),
    };
    let pair = Pair { pictures: [picture(), picture()], cosine: f32::NAN };
    let projection = Projection { name: HOSTILE.into(), note: HOSTILE.into(), places: vec![[f32::NAN, 1.0]] };
    Report {
        name: HOSTILE.into(),
        about: HOSTILE.into(),
        made: HOSTILE.into(),
        program: HOSTILE.into(),
        duration_s: Some(f64::NAN),
        warnings: vec![HOSTILE.into()],
        data: vec![fact.clone()],
        environment: vec![fact],
        config: Some(HOSTILE.into()),
        classes: vec![HOSTILE.into()],
        steps: Section::Present(vec![StepRow { step: 1, loss: Some(1.0), ..StepRow::default() }]),
        knn_references: vec![Reference { label: HOSTILE.into(), value: f64::INFINITY }],
        scores: Section::Present(vec![ScoreLadder {
            title: HOSTILE.into(),
            protocol: HOSTILE.into(),
            rungs: vec![Rung { label: HOSTILE.into(), value: f64::NAN, interval: Some([f64::NAN, 1.0]) }],
        }]),
        confusion: Section::Hint(HOSTILE.into()),
        map: Section::Present(EmbeddingMap { pictures: vec![on_map], projections: vec![projection] }),
        neighbours: Section::Present(vec![GalleryRow { query: picture(), found: vec![(picture(), 0.5)] }]),
        augmentations: Section::Present(picture().image),
        pairs: Section::Present(vec![PairList { title: HOSTILE.into(), note: HOSTILE.into(), pairs: vec![pair] }]),
    }
}

#[test]
fn words_from_outside_stay_words() {
    let page = html(&hostile()).expect("a page");
    assert!(!page.contains("<img onerror") && !page.contains("onerror=\""), "a name became markup");
    // Two scripts, the data and the program, and no comment.
    assert_eq!((page.matches("<script").count(), page.matches("</script>").count()), (2, 2));
    assert!(!page.contains("<!--") && !page.contains(['\u{202e}', '\0']));
    let data = page.split("id=\"data\">").nth(1).and_then(|rest| rest.split("</script>").next()).expect("the data");
    assert!(!data.contains(['<', '>', '&', '\u{2028}']));
    assert!(page.contains("&lt;/script&gt;&lt;img onerror=&quot;alert(1)&quot;"), "the name is shown");
    for figure in figures(&hostile()) {
        assert!(!figure.svg.contains("<img") && !figure.svg.contains("</script>"), "{}", figure.svg);
    }
}

#[test]
fn nothing_is_fetched() {
    let page = html(&hostile()).expect("a page");
    let names = page.matches("http://www.w3.org/2000/svg").count();
    assert_eq!(page.matches("http://").count() + page.matches("https://").count(), names, "only a name of a format");
    for source in page.split(" src=\"").skip(1) {
        assert!(source.starts_with("data:image/"), "{}", &source[..40]);
    }
    assert!(page.contains("default-src 'none'; script-src 'sha256-"));
}

#[test]
fn numbers_that_are_not_finite_are_gaps() {
    let row = |step, loss| StepRow { step, loss, chance: Some(f32::INFINITY), ..StepRow::default() };
    let steps = vec![row(1, Some(4.0)), row(2, Some(f32::NAN)), row(3, Some(f32::INFINITY)), row(4, Some(3.0))];
    let report = Report { steps: Section::Present(steps), ..Report::default() };
    let page = html(&report).expect("a page");
    assert!(!page.contains("NaN") && !page.contains("\"inf"), "a number that is none is on the page");
    assert!(page.contains("\"low\":[4,null,null,3]"), "the gap is missing");
    let loss = &figures(&report)[0];
    assert_eq!((loss.name.as_str(), loss.svg.contains("NaN"), loss.svg.contains("inf")), ("loss", false, false));
}

#[test]
fn a_run_of_a_million_steps_makes_a_small_page_that_keeps_its_peak() {
    let row = |step: u64| {
        let wave = f32::from(u16::try_from(step % 1000).expect("below 1,000")) / 1000.0;
        let loss = if step == 777_777 { 99.0 } else { 4.0 + wave };
        StepRow { step, epoch: Some(wave), loss: Some(loss), gradient_norm: Some(1.0 + wave), ..StepRow::default() }
    };
    let report = Report { steps: Section::Present((1..=1_000_000).map(row).collect()), ..Report::default() };
    let page = html(&report).expect("a page");
    assert!(page.len() < 300_000, "{} bytes", page.len());
    assert!(page.contains("faint: least and greatest of every 2,084 steps · line: mean of 25,001 steps"));
    assert!(page.contains(",99,"), "the peak is lost");
}

#[test]
fn what_is_absent_is_not_spoken_of_and_what_is_hinted_is() {
    let page = html(&Report::default()).expect("an empty page");
    assert!(!page.contains("<section") && !page.contains("class=\"tiles\""));
    let nothing = Report {
        steps: Section::Present(vec![]),
        scores: Section::Present(vec![]),
        map: Section::Present(EmbeddingMap::default()),
        neighbours: Section::Present(vec![]),
        pairs: Section::Present(vec![]),
        ..Report::default()
    };
    let page = html(&nothing).expect("a page");
    assert!(!page.contains("<section") && page.contains("\"map\":null"), "what is empty is as good as absent");
    let hint = "`twoview eval knn runs/a` adds the scores.".to_owned();
    let page = html(&Report { scores: Section::Hint(hint), ..Report::default() }).expect("a page");
    assert!(page.contains("<code>twoview eval knn runs/a</code> adds the scores."));
}

#[test]
fn an_event_file_is_what_tensorboard_writes() {
    // From `tensorboard.summary.writer.record_writer` and `tensorboard.compat.proto.event_pb2`, TensorBoard 2.21;
    // tests/event_file/make.py.
    let golden = include_bytes!("event_file/golden.tfevents");
    let mut bytes = Vec::new();
    let mut events = EventFile::new(&mut bytes, 1_700_000_000.25).expect("memory");
    events.scalars(1_700_000_001.5, 1, &[("loss", 4.942_863), ("lr", 0.0)]).expect("memory");
    events.scalars(1_700_000_002.75, 300, &[("similarity/positive", -0.5)]).expect("memory");
    assert_eq!(bytes, golden);
}
