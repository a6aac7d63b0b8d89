//! The fuzzer's entries over a corpus and over mutations of it, within seconds. `cargo +nightly fuzz run NAME` in
//! `dns/server/fuzz` looks for longer.

mod entries;

use std::time::{Duration, Instant};

use entries::ENTRIES;

/// How long each entry is tried; `FAIRLEAD_FUZZ_SECS` makes it longer.
const SECS: u64 = 1;

/// What mutations start from.
fn corpus(entry: &str) -> Vec<Vec<u8>> {
    let head = |counts: [u8; 4]| {
        let [q, a, n, r] = counts;
        vec![0, 7, 1, 0, 0, q, 0, a, 0, n, 0, r]
    };
    let name = b"\x03web\x07default\x03svc\x07cluster\x05local\x00";
    let question = |kind: u8| [name.as_slice(), &[0, kind, 0, 1]].concat();
    let opt = b"\x00\x00\x29\x04\xd0\x00\x00\x80\x00\x00\x0c\x00\x0a\x00\x08abcdefgh";
    match entry {
        "query" | "message" => vec![
            [head([1, 0, 0, 0]), question(1)].concat(),
            [head([1, 0, 0, 1]), question(33), opt.to_vec()].concat(),
            [head([1, 0, 0, 0]), b"\xc0\x0c\x00\x01\x00\x01".to_vec()].concat(),
            [head([2, 0, 0, 0]), question(1), question(28)].concat(),
            [head([1, 1, 0, 0]), question(1), b"\xc0\x0c\x00\x05\x00\x01\0\0\0\x05\x00\x02\xc0\x0c".to_vec()]
                .concat(),
        ],
        "corefile" => vec![
            b".:53 example.org {\n forward . 1.1.1.1 {\n  policy sequential\n }\n cache 30 {\n  serve_stale\n }\n}\n"
                .to_vec(),
            b"(s) {\n log . \"{remote} {type}\"\n}\n. {\n import s\n template IN A {\n  answer \"{{ .Name }} 1 IN A 192.0.2.1\"\n }\n view v {\n  expr type() == 'A' && incidr(client_ip(), '10.0.0.0/8')\n }\n}\n"
                .to_vec(),
            b". {\n rewrite stop {\n  name regex (.*)[.]a {1}.b\n  answer name (.*)[.]b {1}.a\n }\n acl {\n  allow net 10.0.0.0/8\n }\n}\n".to_vec(),
        ],
        _ => vec![
            b"$TTL 60\n@ SOA ns hm ( 1 2 3 4 5 ) ; note\n@ NS ns\nns A 192.0.2.1\n*.w CNAME ns\nd DNAME e\ns NS ns.s\nns.s A 192.0.2.2\n"
                .to_vec(),
            b"$ORIGIN a.example.\n$GENERATE 1-3 h$ A 192.0.2.$\n@ 60 IN TXT \"a b\" \\\"c\nx MX 10 y\nz SRV 0 1 2 x\n".to_vec(),
        ],
    }
}

/// Changes, drops, doubles or swaps in some octets.
fn mutate(random: &mut fastrand::Rng, octets: &mut Vec<u8>, other: &[u8]) {
    for _ in 0..=random.usize(..4) {
        if octets.is_empty() {
            octets.push(random.u8(..));
        }
        let at = random.usize(..octets.len());
        let to = random.usize(at..=octets.len());
        match random.u8(..6) {
            0 => octets[at] = random.u8(..),
            1 => octets[at] ^= 1 << random.u8(..8),
            2 => drop(octets.drain(at..to)),
            3 => {
                let part = octets[at..to].to_vec();
                octets.splice(at..at, part);
            }
            4 => octets.insert(
                at,
                *random
                    .choice(b"\x00\xff\xc0\x0c{}\n \"\\()$@*.#".iter())
                    .unwrap_or(&0),
            ),
            _ => {
                let from = random.usize(..=other.len());
                octets.splice(at..to, other[from..].iter().copied());
            }
        }
        octets.truncate(4096);
    }
}

#[test]
fn mutations_are_survived() {
    let secs = std::env::var("FAIRLEAD_FUZZ_SECS").ok();
    let secs = secs.and_then(|secs| secs.parse().ok()).unwrap_or(SECS);
    for (name, entry) in ENTRIES {
        let corpus = corpus(name);
        let mut tried = 0_u64;
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(secs) || tried < 200 {
            // The seed alone repeats a failure.
            let mut random = fastrand::Rng::with_seed(tried);
            let mut octets = random.choice(&corpus).cloned().unwrap_or_default();
            let other = random.choice(&corpus).cloned().unwrap_or_default();
            mutate(&mut random, &mut octets, &other);
            let run = std::panic::catch_unwind(|| entry(&octets));
            assert!(
                run.is_ok(),
                "{name}, seed {tried}: {:?}",
                octets.escape_ascii().to_string()
            );
            tried += 1;
        }
        for octets in &corpus {
            entry(octets);
        }
    }
}
