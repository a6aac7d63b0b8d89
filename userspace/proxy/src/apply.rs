//! Steps carried out so that one which the kernel refuses does not hold up the others.

use plan::{Step, Store};

/// Steps that may be refused in one turn before the whole is looked at again.
const REFUSED_MAX: usize = 64;

/// Carries out steps, and gives those that were refused and may be left out: a frontend that stays as it was, or a
/// range of clients, leaves every other frontend whole.
///
/// # Errors
///
/// The step that was refused although others lean on it; nothing behind it was done.
pub(crate) fn apply<'a, S: Store<Error = bpf::ApplyError>>(
    store: &mut S,
    steps: &'a [Step],
) -> Result<Vec<(&'a Step, bpf::ApplyError)>, bpf::ApplyError> {
    let mut refused = Vec::new();
    let mut rest = steps;
    while let Err(error) = store.apply(rest) {
        let Some((step, behind)) = rest.get(error.index..).and_then(<[Step]>::split_first) else {
            return Err(error);
        };
        let alone = match step {
            Step::PutFrontend(..)
            | Step::RemoveFrontend(_)
            | Step::PutSource(_)
            | Step::RemoveSource(_) => true,
            Step::PutBackend(..)
            | Step::PutRing { .. }
            | Step::ClearRing { .. }
            | Step::PutSpread { .. }
            | Step::ClearSpread { .. }
            | Step::RemoveBackend(_) => false,
        };
        if !alone || refused.len() == REFUSED_MAX {
            return Err(error);
        }
        refused.push((step, error));
        rest = behind;
    }
    Ok(refused)
}

/// An error with its causes.
pub(crate) fn words(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use abi::{Frontend, FrontendKey4};
    use plan::FrontendKey;

    use super::*;

    /// Refuses steps by their words.
    struct Refusing {
        wrong: BTreeSet<String>,
        done: Vec<String>,
    }

    impl Store for Refusing {
        type Error = bpf::ApplyError;

        fn apply(&mut self, steps: &[Step]) -> Result<(), bpf::ApplyError> {
            for (index, step) in steps.iter().enumerate() {
                if self.wrong.contains(&step.to_string()) {
                    let source = bpf::Error::System {
                        action: "write",
                        source: std::io::Error::other("no memory"),
                    };
                    return Err(bpf::ApplyError { index, source });
                }
                self.done.push(step.to_string());
            }
            Ok(())
        }
    }

    fn frontend(host: u8) -> Step {
        let key = FrontendKey4 {
            addr: [10, 96, 0, host],
            port: 80.into(),
            proto: 6,
            scope: 0,
        };
        Step::PutFrontend(FrontendKey::V4(key), Frontend::default())
    }

    fn ring() -> Step {
        Step::PutRing {
            offset: 0,
            backends: vec![1],
        }
    }

    #[test]
    fn a_refused_frontend_holds_nobody_up_and_a_refused_ring_everybody() {
        let steps = [ring(), frontend(1), frontend(2), frontend(3)];
        let words: Vec<String> = steps.iter().map(ToString::to_string).collect();
        for (wrong, done, refused) in [
            (vec![], vec![0, 1, 2, 3], Some(vec![])),
            (vec![1], vec![0, 2, 3], Some(vec![1])),
            (vec![1, 3], vec![0, 2], Some(vec![1, 3])),
            (vec![0], vec![], None),
        ] {
            let mut store = Refusing {
                wrong: wrong.iter().map(|at: &usize| words[*at].clone()).collect(),
                done: Vec::new(),
            };
            let got = apply(&mut store, &steps).ok();
            let got = got.map(|all| all.iter().map(|(step, _)| step.to_string()).collect());
            let of = |at: Vec<usize>| -> Vec<String> {
                at.into_iter().map(|at| words[at].clone()).collect()
            };
            assert_eq!(store.done, of(done), "{wrong:?}");
            assert_eq!(got, refused.map(of), "{wrong:?}");
        }
    }
}
