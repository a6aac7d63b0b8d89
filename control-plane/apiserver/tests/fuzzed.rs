//! The entry points of `fuzz/`, run over its corpus and over changes of it that are the same every time.

#[path = "../../../fuzz/src/entries.rs"]
mod entries;

use std::path::Path;

/// How often each file is changed.
const CHANGES: usize = 300;
const SEED: u64 = 0x0f41_71ea_d000_0001;

/// The text or bytes with one to four small changes.
fn changed(data: &[u8], random: &mut fastrand::Rng) -> Vec<u8> {
    let mut out = data.to_vec();
    for _ in 0..random.usize(1..=4) {
        let at = random.usize(..=out.len());
        let end = (at + random.usize(..16)).min(out.len());
        match random.u8(..6) {
            0 => out.truncate(at),
            1 => out.insert(at, random.u8(..)),
            2 => drop(out.drain(at..end)),
            3 => {
                let copy = out[at..end].to_vec();
                let to = random.usize(..=out.len());
                out.splice(to..to, copy);
            }
            4 if at < out.len() => out[at] ^= 1 << random.u8(..8),
            _ => {
                let tokens: [&[u8]; 12] = [
                    b"{",
                    b"}",
                    b"[",
                    b"]",
                    b"\"",
                    b":",
                    b",",
                    b"null",
                    b"-1",
                    b"$patch",
                    b"\xff",
                    b"9223372036854775808",
                ];
                let token = tokens[random.usize(..tokens.len())];
                out.splice(at..at, token.iter().copied());
            }
        }
    }
    out
}

fn run(name: &str, entry: fn(&[u8])) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz/corpus")
        .join(name);
    let mut files: Vec<_> = std::fs::read_dir(&dir)
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{}", dir.display());
    let mut random = fastrand::Rng::with_seed(SEED);
    for file in files {
        let data = std::fs::read(&file).unwrap();
        entry(&data);
        for _ in 0..CHANGES {
            let data = changed(&data, &mut random);
            let shown = String::from_utf8_lossy(&data).into_owned();
            let outcome = std::panic::catch_unwind(|| entry(&data));
            assert!(outcome.is_ok(), "{name}: {shown}");
        }
    }
}

#[test]
fn json() {
    run("json", entries::json);
}

#[test]
fn yaml() {
    run("yaml", entries::yaml);
}

#[test]
fn protobuf() {
    run("protobuf", entries::protobuf);
}

#[test]
fn strategic() {
    run("strategic", entries::strategic);
}

#[test]
fn apply() {
    run("apply", entries::apply);
}

#[test]
fn selectors() {
    run("selectors", entries::selectors);
}

#[test]
fn cel() {
    run("cel", entries::cel);
}

#[test]
fn definitions() {
    run("definitions", entries::definitions);
}
