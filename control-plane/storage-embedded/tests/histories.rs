//! Clients of a process that is killed again and again: what they saw is one history, and the log that is left tells it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use storage::linear::drive::{self, Choices};
use storage::linear::{Call, Operation, Outcome, check};
use storage::{Revision, Storage};
use storage_embedded::{Embedded, Options};

/// Where the child process finds the directory and which round it is.
const DIRECTORY: &str = "FAIRLEAD_TEST_HISTORIES_DIRECTORY";
const ROUND: &str = "FAIRLEAD_TEST_HISTORIES_ROUND";
const CLIENTS: u64 = 6;
const KEYS: u64 = 3;

/// Works until it is killed. What is begun and what came of it is told line by line, before the one and after the other;
/// the order of the lines is the clock.
fn work_until_killed(directory: &Path, round: u64) -> ! {
    let store: Arc<dyn Storage> = Arc::new(Embedded::open(directory, Options::default()).unwrap());
    let tell = |line: String| std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let store = &store;
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .build()
                    .unwrap();
                let mut choices = Choices::new(round * 100 + client);
                let mut last = BTreeMap::new();
                for i in 0_u64.. {
                    let unique = format!("{round}-{client}-{i}");
                    let call = drive::choose(&mut choices, KEYS, &last, &unique);
                    tell(format!("call {client} {}\n", call_text(&call)));
                    let outcome = runtime.block_on(drive::carry_out(&**store, &call));
                    drive::learn(&mut last, &call, &outcome);
                    tell(format!("done {client} {}\n", outcome_text(&outcome)));
                }
            });
        }
    });
    unreachable!("the clients go on for ever")
}

fn text(value: &Bytes) -> &str {
    std::str::from_utf8(value).unwrap()
}

fn call_text(call: &Call) -> String {
    match call {
        Call::Get { key } => format!("get {key}"),
        Call::List => "list".to_owned(),
        Call::Write {
            key,
            value,
            expected,
        } => {
            let value = value.as_ref().map_or("-", text);
            format!("write {key} {expected} {value}")
        }
    }
}

fn outcome_text(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Written(at) => format!("written {at}"),
        Outcome::Stood(None) => "stood".to_owned(),
        Outcome::Stood(Some((value, at))) => format!("stood {at} {}", text(value)),
        Outcome::Exists => "exists".to_owned(),
        Outcome::All(at, all) => {
            let mut line = format!("all {at}");
            for (key, (value, modified)) in all {
                line.push_str(&format!(" {key} {modified} {}", text(value)));
            }
            line
        }
        Outcome::Unknown => "unknown".to_owned(),
    }
}

fn read_call(words: &[&str]) -> Call {
    match words {
        ["get", key] => Call::Get {
            key: (*key).to_owned(),
        },
        ["list"] => Call::List,
        ["write", key, expected, value] => Call::Write {
            key: (*key).to_owned(),
            value: (*value != "-").then(|| Bytes::from((*value).to_owned())),
            expected: expected.parse().unwrap(),
        },
        other => panic!("{other:?}"),
    }
}

fn read_outcome(words: &[&str]) -> Outcome {
    let value = |text: &str| Bytes::from(text.to_owned());
    match words {
        ["written", at] => Outcome::Written(at.parse().unwrap()),
        ["stood"] => Outcome::Stood(None),
        ["stood", at, text] => Outcome::Stood(Some((value(text), at.parse().unwrap()))),
        ["exists"] => Outcome::Exists,
        ["all", at, all @ ..] => {
            let all = all
                .chunks(3)
                .map(|one| (one[0].to_owned(), (value(one[2]), one[1].parse().unwrap())));
            Outcome::All(at.parse().unwrap(), all.collect())
        }
        ["unknown"] => Outcome::Unknown,
        other => panic!("{other:?}"),
    }
}

/// How often the process is killed; `FAIRLEAD_HISTORIES` does so more often.
fn rounds() -> u64 {
    let given = std::env::var("FAIRLEAD_HISTORIES").ok();
    given.and_then(|text| text.parse().ok()).unwrap_or(6)
}

#[test]
fn histories_through_kill_9_are_linearizable() {
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        let round = std::env::var(ROUND).unwrap().parse().unwrap();
        work_until_killed(Path::new(&directory), round);
    }
    let temporary = tempfile::tempdir().unwrap();
    let directory = temporary.path().join("data");
    let mut operations: Vec<Operation> = Vec::new();
    let (mut clock, mut log) = (0, Vec::new());
    for round in 0..rounds() {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "histories_through_kill_9_are_linearizable",
                "--nocapture",
            ])
            .env(DIRECTORY, &directory)
            .env(ROUND, round.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut open: BTreeMap<String, (u64, Call)> = BTreeMap::new();
        let mut lines = 0;
        let reader = BufReader::new(child.stdout.take().unwrap());
        for line in reader.lines().map_while(Result::ok) {
            clock += 1;
            let words: Vec<&str> = line.split(' ').collect();
            match words.as_slice() {
                ["call", client, call @ ..] => {
                    open.insert((*client).to_owned(), (clock, read_call(call)));
                }
                ["done", client, outcome @ ..] => {
                    let (called, call) = open.remove(*client).unwrap();
                    let outcome = read_outcome(outcome);
                    operations.push(Operation {
                        called,
                        answered: clock,
                        call,
                        outcome,
                    });
                }
                // What the test runner says.
                _ => continue,
            }
            lines += 1;
            // At another point each time; what it said before it died is read to the end.
            if lines == 800 + round * 137 {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        clock += 1;
        operations.extend(open.into_values().map(|(called, call)| Operation {
            called,
            answered: clock,
            call,
            outcome: Outcome::Unknown,
        }));

        // What happened is read from where the last round ended: the log keeps it through the restart.
        let store: Arc<dyn Storage> =
            Arc::new(Embedded::open(&directory, Options::default()).unwrap());
        let from = log.last().map_or(Revision(0), storage::Change::revision);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        log.extend(runtime.unwrap().block_on(drive::log(&store, from)).unwrap());
    }
    check(0, &operations, &log).unwrap();
    assert!(
        log.len() > 400 && operations.len() > 2000,
        "{} of {}",
        log.len(),
        operations.len()
    );
}
