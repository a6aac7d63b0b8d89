//! A watch against a server that does everything a server may do.
#![forbid(unsafe_code)]

mod support;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use client::{Client, Event, Params};
use futures_util::StreamExt;
use serde_json::{Value, json};
use support::{Answer, End, Thing, line, page, serve, status, thing};
use tokio::sync::mpsc;
use tokio::time::Instant;

const LIST: &str = "GET /api/v1/things?limit=500&skipUnreadable=true";

fn watch_from(version: u64) -> String {
    format!(
        "GET /api/v1/things?watch=true&allowWatchBookmarks=true&skipUnreadable=true&resourceVersion={version}"
    )
}

/// Everything that a watch says before it falls silent for longer than any wait, as text.
async fn events(script: &Script, params: Params) -> Vec<String> {
    let mut watch = script.client.watch::<Thing>(params);
    let mut said = Vec::new();
    while let Ok(event) = tokio::time::timeout(Duration::from_secs(60), watch.next()).await {
        said.push(match event.unwrap() {
            Event::Restarted => "restarted".to_owned(),
            Event::Synced => "synced".to_owned(),
            Event::Applied(thing) => format!("{}={}", thing.metadata.name, thing.size),
            Event::Deleted { namespace, name } => format!("{namespace}/{name} gone"),
        });
    }
    said
}

struct Case {
    name: &'static str,
    answers: Vec<Answer>,
    requests: Vec<String>,
    events: &'static [&'static str],
}

fn bookmark(version: u64) -> String {
    line(
        "BOOKMARK",
        &json!({"metadata": {"resourceVersion": version.to_string()}}),
    )
}

fn gone() -> String {
    line(
        "ERROR",
        &json!({"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}),
    )
}

fn silence() -> Answer {
    Answer::Pieces(vec![], End::Hang)
}

fn cases() -> Vec<Case> {
    let whole = line("ADDED", &thing("b", 8, 2));
    let (head, tail) = whole.split_at(20);
    vec![
        Case {
            name: "pages, then changes",
            answers: vec![
                page(7, "next", &[thing("a", 3, 1)]),
                page(7, "", &[thing("b", 4, 2)]),
                Answer::Pieces(
                    vec![
                        line("MODIFIED", &thing("a", 8, 5)) + &line("ADDED", &thing("c", 9, 3)),
                        line("DELETED", &thing("b", 10, 2)),
                    ],
                    End::Hang,
                ),
            ],
            requests: vec![LIST.into(), format!("{LIST}&continue=next"), watch_from(7)],
            events: &[
                "restarted",
                "a=1",
                "b=2",
                "synced",
                "a=5",
                "c=3",
                "n/b gone",
            ],
        },
        Case {
            name: "a line in two pieces, then the connection breaks in the middle of one",
            answers: vec![
                page(7, "", &[]),
                Answer::Pieces(vec![head.into(), tail.into(), head.into()], End::Break),
                Answer::Pieces(vec![line("ADDED", &thing("c", 9, 3))], End::Close),
                silence(),
            ],
            requests: vec![LIST.into(), watch_from(7), watch_from(8), watch_from(9)],
            events: &["restarted", "synced", "b=2", "c=3"],
        },
        Case {
            name: "a bookmark moves the place to resume from",
            answers: vec![
                page(7, "", &[]),
                Answer::Pieces(vec![bookmark(50)], End::Close),
                silence(),
            ],
            requests: vec![LIST.into(), watch_from(7), watch_from(50)],
            events: &["restarted", "synced"],
        },
        Case {
            name: "410 as the answer, 410 as an event",
            answers: vec![
                page(7, "", &[thing("a", 3, 1)]),
                status(410, "Expired"),
                page(20, "", &[]),
                Answer::Pieces(vec![gone()], End::Close),
                page(30, "", &[thing("z", 25, 9)]),
                silence(),
            ],
            requests: vec![
                LIST.into(),
                watch_from(7),
                LIST.into(),
                watch_from(20),
                LIST.into(),
                watch_from(30),
            ],
            events: &[
                "restarted",
                "a=1",
                "synced",
                "restarted",
                "synced",
                "restarted",
                "z=9",
                "synced",
            ],
        },
        Case {
            name: "a server that was put back to an older state",
            answers: vec![
                page(77, "", &[thing("a", 3, 1)]),
                Answer::Break,
                status(504, "Timeout"),
                page(37, "", &[thing("b", 9, 2)]),
                silence(),
            ],
            requests: vec![
                LIST.into(),
                watch_from(77),
                watch_from(77),
                LIST.into(),
                watch_from(37),
            ],
            events: &["restarted", "a=1", "synced", "restarted", "b=2", "synced"],
        },
        Case {
            name: "the continue token expires, the list begins anew",
            answers: vec![
                page(7, "next", &[thing("a", 3, 1)]),
                status(410, "Expired"),
                page(9, "", &[thing("a", 8, 2)]),
                silence(),
            ],
            requests: vec![
                LIST.into(),
                format!("{LIST}&continue=next"),
                LIST.into(),
                watch_from(9),
            ],
            events: &["restarted", "a=1", "restarted", "a=2", "synced"],
        },
        Case {
            name: "a page that fails is asked for again, not the list",
            answers: vec![
                page(7, "next", &[thing("a", 3, 1)]),
                Answer::Break,
                status(503, "ServiceUnavailable"),
                page(7, "", &[thing("b", 4, 2)]),
                status(500, "InternalError"),
                silence(),
            ],
            requests: vec![
                LIST.into(),
                format!("{LIST}&continue=next"),
                format!("{LIST}&continue=next"),
                format!("{LIST}&continue=next"),
                watch_from(7),
                watch_from(7),
            ],
            events: &["restarted", "a=1", "b=2", "synced"],
        },
        Case {
            name: "a line that is no event",
            answers: vec![
                page(7, "", &[]),
                Answer::Pieces(
                    vec![line("ADDED", &thing("a", 8, 1)) + "<html>\n"],
                    End::Hang,
                ),
                Answer::Pieces(
                    vec![line("ERROR", &json!({"code": 500, "message": "etcd"}))],
                    End::Hang,
                ),
                // Nothing says that another watch from there would come past it.
                page(8, "", &[thing("a", 8, 1)]),
                Answer::Pieces(
                    vec!["\n".into(), line("ADDED", &thing("b", 9, 1))],
                    End::Hang,
                ),
            ],
            requests: vec![
                LIST.into(),
                watch_from(7),
                watch_from(8),
                LIST.into(),
                watch_from(8),
            ],
            events: &[
                "restarted",
                "synced",
                "a=1",
                "restarted",
                "a=1",
                "synced",
                "b=1",
            ],
        },
    ]
}

#[tokio::test(start_paused = true)]
async fn whatever_the_server_does() {
    for case in cases() {
        let script = Script::new(case.answers);
        assert_eq!(
            events(&script, Params::default()).await,
            case.events,
            "{}",
            case.name
        );
        assert_eq!(script.requests(), case.requests, "{}", case.name);
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_decoded_is_reported_and_skipped() {
    let bad: Value = "large".into();
    let script = Script::new(vec![
        page(7, "", &[thing("a", 3, bad.clone()), thing("b", 4, 1)]),
        Answer::Pieces(
            vec![line("MODIFIED", &thing("b", 8, bad)) + &line("ADDED", &thing("c", 9, 1))],
            End::Close,
        ),
        silence(),
    ]);
    let (findings, mut found) = mpsc::unbounded_channel();
    let params = Params {
        findings: Some(findings),
        ..Params::default()
    };
    assert_eq!(
        events(&script, params).await,
        ["restarted", "b=1", "synced", "c=1"]
    );
    assert_eq!(
        script.requests(),
        [LIST.to_owned(), watch_from(7), watch_from(9)]
    );
    let mut names = Vec::new();
    while let Ok(finding) = found.try_recv() {
        assert!(finding.problem.contains("expected u64"), "{finding:?}");
        names.push(finding.name);
    }
    assert_eq!(names, ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn selectors_and_namespace_are_sent() {
    let script = Script::new(vec![page(7, "", &[]), silence()]);
    let params = Params {
        namespace: "n".into(),
        label_selector: "a=b".into(),
        field_selector: "spec.nodeName=x".into(),
        findings: None,
    };
    events(&script, params).await;
    let selectors = "labelSelector=a%3Db&fieldSelector=spec.nodeName%3Dx";
    assert_eq!(
        script.requests(),
        [
            format!("GET /api/v1/namespaces/n/things?{selectors}&limit=500&skipUnreadable=true"),
            format!(
                "GET /api/v1/namespaces/n/things?{selectors}&watch=true&allowWatchBookmarks=true&skipUnreadable=true&resourceVersion=7"
            ),
        ]
    );
}

/// The first retry is immediate, ten failures take less than the sum of the limits and more than half of it.
#[tokio::test(start_paused = true)]
async fn failures_wait_longer_and_longer() {
    let mut answers: Vec<Answer> = (0..10).map(|_| Answer::Break).collect();
    answers.push(page(7, "", &[]));
    let script = Script::new(answers);
    let mut watch = script.client.watch::<Thing>(Params::default());
    let began = Instant::now();
    assert_eq!(watch.next().await, Some(Event::Restarted));
    let full: f64 = (0..9)
        .map(|power| (0.1 * f64::from(1 << power)).min(10.0))
        .sum();
    let took = began.elapsed().as_secs_f64();
    assert!(
        took <= full + 0.1 && took >= full / 2.0,
        "{took} s of {full} s"
    );
}

/// A server that accepts a watch and ends it at once is not asked in a tight loop.
#[tokio::test(start_paused = true)]
async fn watches_that_end_at_once_are_spaced() {
    let mut answers = vec![page(7, "", &[])];
    answers.extend((0..8).map(|_| Answer::Pieces(vec![], End::Close)));
    answers.push(Answer::Pieces(
        vec![line("ADDED", &thing("a", 8, 1))],
        End::Hang,
    ));
    let script = Script::new(answers);
    let mut watch = script.client.watch::<Thing>(Params::default()).skip(2);
    let began = Instant::now();
    assert!(matches!(watch.next().await, Some(Event::Applied(_))));
    assert!(
        began.elapsed() > Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
}

/// A peer that neither speaks nor closes is given up on after the time that the watch was to last.
#[tokio::test(start_paused = true)]
async fn silence_is_not_for_ever() {
    let script = Script::new(vec![
        page(7, "", &[]),
        silence(),
        Answer::Pieces(vec![line("ADDED", &thing("a", 8, 1))], End::Hang),
    ]);
    let mut watch = script.client.watch::<Thing>(Params::default()).skip(2);
    let began = Instant::now();
    assert!(matches!(watch.next().await, Some(Event::Applied(_))));
    let took = began.elapsed().as_secs();
    assert!((330..=631).contains(&took), "{took} s");
}

/// A server by script: the requests that came, and a client for them.
struct Script {
    client: Client,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Script {
    fn new(answers: Vec<Answer>) -> Script {
        let requests = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&requests);
        let answers = Arc::new(Mutex::new(VecDeque::from(answers)));
        let client = serve(move |request| {
            log.lock()
                .unwrap()
                .push(format!("{} {}", request.method(), request.uri()));
            answers
                .lock()
                .unwrap()
                .pop_front()
                .expect("no request beyond the script")
        });
        Script { client, requests }
    }

    /// The requests so far, `timeoutSeconds` (which is random) left out.
    fn requests(&self) -> Vec<String> {
        let requests = self.requests.lock().unwrap();
        let strip = |request: &String| match request.split_once("&timeoutSeconds=") {
            Some((rest, _)) => rest.to_owned(),
            None => request.clone(),
        };
        requests.iter().map(strip).collect()
    }
}
