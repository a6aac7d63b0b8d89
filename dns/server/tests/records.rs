//! Records as master files write them, and the octets that their data is: `tests/records.txt`, made with dnspython 2.9,
//! a line each of `TYPE DATA => OCTETS`.

use std::sync::Arc;

use dns_server::instance::{Environment, Instance};
use dns_server::names;
use dns_server::plugin::file::{master, present};
use hickory_proto::rr::RData;
use hickory_proto::serialize::binary::{BinEncodable as _, BinEncoder};

/// The octets of data, with names in full.
fn octets(data: &RData) -> Vec<u8> {
    let mut octets = Vec::new();
    let mut encoder = BinEncoder::new(&mut octets);
    data.emit(&mut encoder).expect("data can be written");
    octets
}

fn hexadecimal(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

#[test]
fn data_of_every_type_is_read() {
    let origin = names::parse("ty.test.").expect("a name");
    let mut wrong = Vec::new();
    for line in include_str!("records.txt").lines() {
        let (text, expected) = line.split_once(" => ").expect("an arrow");
        match master::record(&format!("q 60 IN {text}"), &origin) {
            Ok(record) => {
                let found = hexadecimal(&octets(&record.data));
                if found != expected {
                    wrong.push(format!("{text}\n  wanted {expected}\n  found  {found}"));
                }
            }
            Err(what) => wrong.push(format!("{text}: {what}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_type_without_words_says_so() {
    let origin = names::parse("ty.test.").expect("a name");
    let error = master::record("q 60 IN WKS 192.0.2.1 6 25", &origin).unwrap_err();
    assert_eq!(
        error,
        "q.ty.test. WKS: its data has no words here: write \\# LENGTH HEXADECIMAL (RFC 3597)"
    );
}

/// What is shown can be read again, and is the same.
#[test]
fn data_of_every_type_is_shown() {
    let origin = names::parse("ty.test.").expect("a name");
    for line in include_str!("records.txt").lines() {
        let (text, expected) = line.split_once(" => ").expect("an arrow");
        let record = master::record(&format!("q 60 IN {text}"), &origin).expect("it is read");
        let shown = present::record(&record);
        let again = master::record(&shown, &origin);
        let again = again.unwrap_or_else(|error| panic!("{shown}: {error}"));
        assert_eq!(hexadecimal(&octets(&again.data)), expected, "{shown}");
        assert_eq!(record.record_type(), again.record_type(), "{shown}");
    }
    for text in [
        "q.ty.test. 60 IN TXT \"a b\" \"c\\\"\\\\\\200\"",
        "q.ty.test. 60 IN DS 1 8 2 00ff",
        "q.ty.test. 60 IN NSEC b.ty.test. A RRSIG TYPE1234",
        "q.ty.test. 60 IN NSEC3 1 1 12 - 2VPTU5TIMAMQTTGL4LUU9KG21E0AOR3S A",
        "q.ty.test. 60 IN RRSIG LOC 8 3 86400 20301122173103 20261120173103 2642 ty.test. oJB1",
        "q.ty.test. 60 IN DNAME mail.ty.test.",
        "q.ty.test. 60 IN TYPE65280 \\# 2 01ff",
        "q.ty.test. 60 IN MX 10 mail.ty.test.",
        "q.ty.test. 60 IN SVCB 1 . mandatory=alpn,port alpn=h2,h3 port=1 ipv4hint=192.0.2.1 key667=\"a b\"",
    ] {
        let record = master::record(text, &origin).expect("it is read");
        assert_eq!(present::record(&record), text);
    }
}

#[test]
fn what_no_type_has_is_refused() {
    let origin = names::parse("ty.test.").expect("a name");
    for text in [
        "LOC 91 N 4 E 0m",
        "LOC 90 0 0.001 N 4 E 0m",
        "LOC 52 N 4 E 0m 1m 1m 1m 1m",
        "LOC 52 N 4 E -100000.01m",
        "LOC 52 N 4 E 0m 99999999999m",
        "LOC 52 1 2 3 N 4 E 0m",
        "EUI48 00-00-5e-00-53",
        "EUI48 0-00-5e-00-53-2aa",
        "NID 10 0014:4fff:ff20",
        "NID 10 0014:4fff:ff20:1ee64",
        "APL 2:192.0.2.0/24",
        "APL 192.0.2.0/24",
        "IPSECKEY 10 4 2 . AAAA",
        "IPSECKEY 10 0 2 192.0.2.1 AAAA",
        "AMTRELAY 10 2 1 192.0.2.1",
        "HIP 2 2001001 AwEA",
        "CERT 65536 0 0 AAAA",
        "DNSKEY 256 3 NOSUCH AAAA",
        "DHCID",
        "MB",
        "MB a b",
        "SVCB 1 . port=x",
        "SVCB 1 . port",
        "SVCB 1 . alpn=",
        "SVCB 1 . port=1 port=2",
        "SVCB 1 . nosuch=1",
        "SVCB 1 . no-default-alpn=1",
        "SVCB 1 . alpn=\"h2",
        "NSAP 47000580",
        "WKS 192.0.2.1 6 25",
        "TKEY a",
        "NOSUCH a",
    ] {
        let found = master::record(&format!("q 60 IN {text}"), &origin);
        assert!(found.is_err(), "{text}: {found:?}");
    }
}

#[test]
fn long_texts_are_parted() {
    let origin = names::parse("ty.test.").expect("a name");
    for kind in ["TXT", "SPF"] {
        let long = "x".repeat(300);
        let record = master::record(&format!("q 60 IN {kind} {long} \"\""), &origin);
        let found = octets(&record.expect("a record").data);
        let expected = [&[255][..], &[b'x'; 255], &[45], &[b'x'; 45], &[0]].concat();
        assert_eq!(found, expected, "{kind}");
    }
}

#[test]
fn generate_fills_numbers_in() {
    let origin = names::parse("ty.test.").expect("a name");
    for (text, expected) in [
        (
            "$GENERATE 1-2 h$ A 192.0.2.$",
            "h1 A 192.0.2.1, h2 A 192.0.2.2",
        ),
        (
            "$GENERATE 9-10 h${0,3} A 192.0.2.$",
            "h009 A 192.0.2.9, h010 A 192.0.2.10",
        ),
        (
            "$GENERATE 30-31 h${-20,2,x} A 192.0.2.${1}",
            "h0a A 192.0.2.31, h0b A 192.0.2.32",
        ),
        (
            "$GENERATE 8-8 h${0,0,o} TXT $$\\$${247,4,X}",
            "h10 TXT $$00FF",
        ),
    ] {
        let records = master::parse(std::path::Path::new("zone"), text, &origin);
        let records = records.unwrap_or_else(|error| panic!("{text}: {error}"));
        let shown: Vec<String> = records
            .iter()
            .map(|record| {
                let owner = record.name.to_string();
                let owner = owner.trim_end_matches(".ty.test.");
                format!("{owner} {} {}", record.record_type(), record.data)
            })
            .collect();
        assert_eq!(shown.join(", "), expected, "{text}");
    }
    for text in [
        "$GENERATE 1-2 h${0 A 192.0.2.$",
        "$GENERATE 1-2 h${-2} A 192.0.2.$",
        "$GENERATE 1-2 h${0,999} A 192.0.2.$",
        "$GENERATE 1-2 h${0,1,q} A 192.0.2.$",
    ] {
        let found = master::parse(std::path::Path::new("zone"), text, &origin);
        assert!(found.is_err(), "{text}: {found:?}");
    }
}

/// CoreDNS takes relative paths from where it runs; what is not there is looked for beside the Corefile.
#[test]
fn relative_paths() {
    let (here, beside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    // This folder, as a path from where the test runs.
    let runs = std::env::current_dir().unwrap();
    let up = "../".repeat(runs.components().count() - 1);
    let there = here.path().canonicalize().unwrap();
    let from_here = format!("{up}{}", there.strip_prefix("/").unwrap().display());
    std::fs::write(here.path().join("zone"), "@ SOA a b 1 2 3 4 5").unwrap();
    std::fs::write(beside.path().join("other"), "@ SOA a b 1 2 3 4 5").unwrap();
    let environment = Arc::new(Environment::new(53));
    let corefile = beside.path().join("Corefile");
    for (path, taken) in [
        (format!("{from_here}/zone"), true),
        ("other".to_owned(), true),
        ("zone".to_owned(), false),
    ] {
        let text = format!(". {{\n file {path} example.org {{\n  reload 0\n }}\n}}\n");
        let built = Instance::build(&environment, &corefile, &text);
        assert_eq!(built.is_ok(), taken, "{path}");
    }
}
