//! Random operations on the engine and on the model; every answer is compared.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::{Make, block_on, changes_until, create, delete, quick, update};
use crate::memory::Memory;
use crate::{Range, Revision, Storage, Write};

/// A step of a history. Revisions are chosen relative to the newest, so that most of them mean something.
#[derive(Clone, Debug)]
enum Step {
    Write(Vec<Choice>),
    List {
        prefix: String,
        start: Option<String>,
        limit: usize,
        back: Option<u64>,
    },
    Get(String),
    Watch {
        prefix: String,
        back: u64,
    },
    Compact {
        back: u64,
    },
}

/// One write, its key, and whether the right revision is expected.
#[derive(Clone, Debug)]
struct Choice {
    what: u8,
    key: String,
    right: bool,
}

pub(super) fn random_operations(make: Make<'_>) {
    let config = Config {
        cases: 48,
        failure_persistence: None,
        ..Config::default()
    };
    let mut runner = TestRunner::new(config);
    let result = runner.run(&vec(step(), 1..60), |steps| {
        block_on(compare(make, &steps));
        Ok(())
    });
    if let Err(failure) = result {
        panic!("{failure}");
    }
}

async fn compare(make: Make<'_>, steps: &[Step]) {
    let engine = make(quick());
    let model = Memory::with_limits(quick());
    for step in steps {
        let newest = model.revision();
        assert_eq!(engine.revision(), newest);
        // One beyond the newest is the future.
        let revision = |back: u64| Revision((newest.0 + 1).saturating_sub(back));
        match step {
            Step::Write(choices) => {
                let mut writes = Vec::new();
                for choice in choices {
                    writes.push(choice.write(&model, newest).await);
                }
                let (ours, theirs) = (engine.write(writes.clone()), model.write(writes));
                assert_eq!(
                    format!("{:?}", ours.await),
                    format!("{:?}", theirs.await),
                    "{step:?}"
                );
            }
            Step::List {
                prefix,
                start,
                limit,
                back,
            } => {
                let range = Range {
                    prefix: prefix.clone(),
                    start: start.clone(),
                    limit: *limit,
                    at: back.map(revision),
                    ..Range::default()
                };
                let (ours, theirs) = (engine.list(range.clone()), model.list(range));
                assert_eq!(
                    format!("{:?}", ours.await),
                    format!("{:?}", theirs.await),
                    "{step:?}"
                );
            }
            Step::Get(key) => {
                let (ours, theirs) = (engine.get(key).await, model.get(key).await);
                assert_eq!(ours.unwrap(), theirs.unwrap(), "{step:?}");
            }
            Step::Watch { prefix, back } => {
                let from = Some(revision(*back));
                let ours = engine.watch(prefix.clone(), from).await;
                let theirs = model.watch(prefix.clone(), from).await;
                match (ours, theirs) {
                    (Ok(mut ours), Ok(mut theirs)) => assert_eq!(
                        changes_until(&mut ours, newest).await,
                        changes_until(&mut theirs, newest).await,
                        "{step:?}"
                    ),
                    (ours, theirs) => assert_eq!(
                        format!("{:?}", ours.err()),
                        format!("{:?}", theirs.err()),
                        "{step:?}"
                    ),
                }
            }
            Step::Compact { back } => {
                let to = revision(*back);
                assert_eq!(
                    format!("{:?}", engine.compact(to).await),
                    format!("{:?}", model.compact(to).await),
                    "{step:?}"
                );
            }
        }
    }
}

impl Choice {
    async fn write(&self, model: &Memory, newest: Revision) -> Write {
        let current = model.get(&self.key).await.unwrap();
        let standing = current.map_or(0, |entry| entry.modified.0);
        let expected = if self.right { standing } else { newest.0 / 2 };
        match self.what {
            0 => create(&self.key, &format!("{}@{}", self.key, newest.0)),
            1 => update(&self.key, &format!("{}@{}", self.key, newest.0), expected),
            _ => delete(&self.key, expected),
        }
    }
}

fn key() -> impl Strategy<Value = String> {
    "/[ab](/[a-d])?"
}

fn some_prefix() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), "/[ab]?/?", key()]
}

fn choice() -> impl Strategy<Value = Choice> {
    (0..3_u8, key(), prop::bool::weighted(0.9)).prop_map(|(what, key, right)| Choice {
        what,
        key,
        right,
    })
}

fn step() -> impl Strategy<Value = Step> {
    let list = (
        some_prefix(),
        prop::option::of(key()),
        0..5_usize,
        prop::option::of(0..40_u64),
    );
    prop_oneof![
        8 => vec(choice(), 0..4).prop_map(Step::Write),
        3 => list.prop_map(|(prefix, start, limit, back)| Step::List { prefix, start, limit, back }),
        1 => key().prop_map(Step::Get),
        2 => (some_prefix(), 0..40_u64).prop_map(|(prefix, back)| Step::Watch { prefix, back }),
        1 => (5..40_u64).prop_map(|back| Step::Compact { back }),
    ]
}
