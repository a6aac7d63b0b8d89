//! Corefiles that are right and become what is expected, and those that are wrong and get an error that helps.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use dns_server::corefile;
use dns_server::corefile::Corefile;
use dns_server::corefile::Directive;
use dns_server::instance::Environment;
use dns_server::instance::Instance;
use proptest::prelude::*;

fn variable(name: &str) -> Option<String> {
    match name {
        "PORT" => Some("1053".to_owned()),
        "TWO" => Some("two words".to_owned()),
        _ => None,
    }
}

fn read(text: &str) -> Result<Corefile, String> {
    corefile::read(Path::new("Corefile"), text, &variable).map_err(|error| error.to_string())
}

/// A block as text: keys, then lines with their arguments quoted and their blocks in braces.
fn shown(corefile: &Corefile) -> String {
    fn line(directive: &Directive) -> String {
        let args: Vec<String> = directive
            .args
            .iter()
            .map(|arg| format!(" {:?}", arg.text))
            .collect();
        let block: Vec<String> = directive.block.iter().map(line).collect();
        let block = match block.as_slice() {
            [] => String::new(),
            lines => format!(" {{ {} }}", lines.join("; ")),
        };
        format!("{}{}{block}", directive.name.text, args.concat())
    }
    let server = |server: &corefile::Server| {
        let keys: Vec<&str> = server.keys.iter().map(|key| key.text.as_str()).collect();
        let lines: Vec<String> = server.directives.iter().map(line).collect();
        format!("{}: {}", keys.join(" "), lines.join("; "))
    };
    corefile
        .servers
        .iter()
        .map(server)
        .collect::<Vec<_>>()
        .join(" | ")
}

#[test]
fn grammar() {
    let table = [
        (". {\n whoami\n}", ".: whoami"),
        (".:53 example.org {\n}", ".:53 example.org: "),
        (
            "a, b,\nc {\n log\n}\nd {\n errors\n}",
            "a b c: log | d: errors",
        ),
        ("a,b {\n log\n}", "a b: log"),
        ("example.org\nlog\nerrors", "example.org: log; errors"),
        ("# note\n. { # note\n log # note\n # } note\n}", ".: log"),
        (
            ". {\n log \"a b\" c\\d \"say \\\"hi\\\" \\d\"\n}",
            r#".: log "a b" "c\\d" "say \"hi\" \\d""#,
        ),
        (
            ". {\n log a \\\n   b\n errors\n}",
            r#".: log "a" "b"; errors"#,
        ),
        (". {\n log \"a\nb\"\n}", r#".: log "a\nb""#),
        (
            ".:{$PORT} {\n log {%TWO%} {$NONE} {$}\n}",
            r#".:1053: log "two words" "" "{$}""#,
        ),
        (
            ". {\n forward . 1.1.1.1 {\n  policy random\n  tls\n }\n}",
            r#".: forward "." "1.1.1.1" { policy "random"; tls }"#,
        ),
        (
            "(s) {\n errors\n log {args[0]} {args.1}\n}\n. {\n import s x \"y z\"\n whoami\n}",
            r#".: errors; log "x" "y z"; whoami"#,
        ),
        (
            "(a) { \n log\n}\n(b) {\n import a\n errors\n}\n. {\n import b\n import b\n}",
            ".: log; errors; log; errors",
        ),
        (". {\n import nothing-*.conf\n}", ".: "),
        (". {\r\n log\r\n}\r\n", ".: log"),
        (".:1053\n{\n whoami\n}", ".:1053: whoami"),
        (".:1053 { whoami\n log\n}", ".:1053: whoami; log"),
        ("a {\n log\n} b {\n errors\n}", "a: log | b: errors"),
        (
            ". {\n health :18080 { lameduck 1s\n }\n}",
            r#".: health ":18080" { lameduck "1s" }"#,
        ),
        ("(s)\n{ log\n} . { import s\n}", ".: log"),
        ("\u{feff}. {\n log\n}", ".: log"),
        ("", ""),
    ];
    for (text, expected) in table {
        let found = read(text).map(|corefile| shown(&corefile));
        assert_eq!(found.as_deref(), Ok(expected), "{text}");
    }
}

#[test]
fn imports_of_files() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("a.conf", "log {args[0]}\n");
    write("b.conf", "errors");
    write("c.txt", "whoami");
    write("servers", "example.org {\n import a.conf x\n}\n");
    write("circle", "import circle\n");
    let path = folder.path().join("Corefile");
    let read = |text: &str| corefile::read(&path, text, &variable);
    let found = read("import servers\n. {\n import *.conf y\n import c.txt\n}").unwrap();
    assert_eq!(
        shown(&found),
        r#"example.org: log "x" | .: log "y"; errors; whoami"#
    );
    // What a pattern matches counts as soon as it is there, and where words stand does not.
    let text = ". {\n import more/*.conf\n}";
    let before = read(text).unwrap().digest();
    assert_eq!(
        read(". { # none\n\n import more/*.conf\n}")
            .unwrap()
            .digest(),
        before
    );
    std::fs::create_dir(folder.path().join("more")).unwrap();
    write("more/x.conf", "# empty\n");
    assert_eq!(read(text).unwrap().digest(), before);
    write("more/x.conf", "log x\n");
    let after = read(text).unwrap().digest();
    assert_ne!(after, before);
    write("more/x.conf", "log\nx\n");
    assert_ne!(read(text).unwrap().digest(), after);
    // A file that is imported names others from its own folder.
    write("more/y.conf", "import z.part\n");
    write("more/z.part", "errors\n");
    let nested = read(". {\n import more/y.conf\n}").unwrap();
    assert_eq!(shown(&nested), ".: errors");
    let error = read("import circle\n").unwrap_err().to_string();
    assert!(error.contains("more than 16 imports deep"), "{error}");
    let error = read(". {\n import a.conf x\n import gone\n}").unwrap_err();
    assert_eq!(error.line, 3);
}

/// Text, line of the error, part of what is said, part of the remedy.
const WRONG: &[(&str, u32, &str, &str)] = &[
    (
        ". {\n log",
        1,
        "the block of . is never closed",
        "close it with }",
    ),
    (". {\n log\n} x\n", 3, "words follow", "a line of their own"),
    ("}\n", 1, "closes nothing", "missing above"),
    (
        "{\n log\n}",
        1,
        "a block without a zone",
        "before the brace",
    ),
    (". {\n log \"a\n}", 2, "a quote is opened", "close it"),
    (
        ". {\n {$NOPE}\n}",
        2,
        "{$NOPE} is empty",
        "set the environment variable",
    ),
    (
        ". {\n forward . 1.1.1.1 { tls }\n}",
        2,
        "a brace in the middle of a line: }",
        "end the line after {",
    ),
    (
        ". {\n forward . 1.1.1.1\n {\n tls\n }\n}",
        3,
        "an opening brace on a line of its own",
        "at the end of the line above",
    ),
    (
        "(a) log\n",
        1,
        "the snippet (a) has no block",
        "open it with {",
    ),
    (
        "(a) {\n log\n",
        1,
        "the snippet (a) is never closed",
        "close it",
    ),
    ("(a) {\n}\n(a) {\n}\n", 3, "defined twice", "rename"),
    (
        ". {\n import\n}",
        2,
        "import names nothing",
        "name a snippet",
    ),
    (
        ". {\n import gone\n}",
        2,
        "no such file or snippet",
        "above this line",
    ),
    (
        "cluster.local {\n kubernetes {\n  ttl 5\n  labels \"a in (b\"\n }\n}",
        4,
        "kubernetes: labels: unable to parse requirement",
        "write a selector",
    ),
    (
        ". {\n rewrite name regex ^(.*)\\.rx\\.org\\.$ {2}.z.org\n}",
        2,
        "{2}.z.org takes group 2",
        "parentheses",
    ),
    (
        ". {\n rewrite name suffix .a .b answer value (.*)\\.b {1}{2}.a\n}",
        2,
        "takes group 2",
        "parentheses",
    ),
    (
        ". {\n frobnicate\n}",
        2,
        "unknown plugin \"frobnicate\"",
        "acl, any, auto, autopath",
    ),
    (
        ". {\n whoami\n}\n.:53 {\n whoami\n}",
        4,
        "served twice on port 53",
        "a view each",
    ),
    (".:99999 {\n}", 1, "is not a port", "1 to 65535"),
    (
        "ftp://. {\n}",
        1,
        "the scheme ftp:// is not served",
        "dns://, tls:// or https://",
    ),
    ("a..b {\n}", 1, "is not a name", "example.org"),
    (
        ". {\n whoami extra\n}",
        2,
        "whoami has 1 arguments",
        "give it 0",
    ),
    (". {\n whoami\n whoami\n}", 3, "stands twice", "keep one"),
    (
        ". {\n cache abc def {\n  success x\n }\n}",
        3,
        "is not a number",
        "within these bounds",
    ),
    (
        ". {\n cache {\n  sucess 10\n }\n}",
        3,
        "unknown option sucess",
        "success",
    ),
    (
        ". {\n cache {\n  servfail 1h\n }\n}",
        3,
        "longer than 5m",
        "RFC 2308",
    ),
    (
        ". {\n forward .\n}",
        2,
        "forward has 1 arguments",
        "at least 2",
    ),
    (
        ". {\n forward . nowhere.conf\n}",
        2,
        "nowhere.conf is not an address",
        "resolv.conf",
    ),
    (
        ". {\n forward . 1.1.1.1 {\n  policy best\n }\n}",
        3,
        "unknown policy best",
        "round_robin",
    ),
    (
        ". {\n forward . ftp://1.1.1.1\n}",
        2,
        "the scheme ftp:// is not known",
        "tls://",
    ),
    (
        ". {\n errors {\n  consolidate 5x a\n }\n}",
        3,
        "is not a duration",
        "1m30s",
    ),
    (
        ". {\n errors {\n  consolidate 5s (\n }\n}",
        3,
        "the pattern is wrong",
        "regular expression",
    ),
    (
        ". {\n acl {\n  allow net 10.0.0.0/99\n }\n}",
        3,
        "neither an address nor a prefix",
        "192.0.2.0/24",
    ),
    (
        ". {\n file gone.db {\n  reload 0\n }\n}",
        2,
        "gone.db",
        "readable master file",
    ),
    (
        ". {\n hosts {\n  1.2.3.4 a..b\n }\n}",
        3,
        "is not a name",
        "ADDRESS NAME",
    ),
    (
        ". {\n rewrite\n}",
        2,
        "rewrite lacks arguments",
        "name, type, class",
    ),
    (
        ". {\n rewrite size 1 2\n}",
        2,
        "unknown field size",
        "name, type, class",
    ),
    (
        ". {\n rewrite name regex ( b\n}",
        2,
        "the pattern is wrong",
        "regular expression",
    ),
    (
        ". {\n template IN A {\n  answer \"{{ .Name\"\n }\n}",
        3,
        "{{ is never closed",
        "a record with",
    ),
    (
        ". {\n multisocket 0\n}",
        2,
        "\"0\" is not a number from 1",
        "a whole number",
    ),
    (
        ". {\n multisocket 2 4\n}",
        2,
        "multisocket has 2 arguments",
        "give it 0 to 1",
    ),
    (
        ". {\n template IN NOPE\n}",
        2,
        "NOPE is not a type",
        "A, AAAA, TXT",
    ),
    (
        ". {\n view v {\n  expr shout()\n }\n}",
        3,
        "unknown function shout",
        "an expression such as",
    ),
    (". {\n tls a b\n}", 2, "tls: a", "certificates in PEM"),
    (
        ". {\n bind nosuchif0\n}",
        2,
        "neither an address nor an interface",
        "name of an interface",
    ),
    (". {\n reload 1s\n}", 2, "shorter than 2s", "2s or more"),
    (
        ". {\n health x y\n}",
        2,
        "health has 2 arguments",
        "give it 0 to 1",
    ),
    (
        ". {\n prometheus here\n}",
        2,
        "is not an address to listen on",
        ":8080",
    ),
    (
        ". {\n transfer {\n }\n}",
        2,
        "nobody may have the zone",
        "to *",
    ),
    (
        ". {\n secondary {\n }\n}",
        2,
        "no primary server",
        "transfer from",
    ),
    (
        ". {\n dns64 10.0.0.0/8\n}",
        2,
        "not a prefix to translate with",
        "64:ff9b::/96",
    ),
    (
        ". {\n tsig {\n  secret k ***\n }\n}",
        3,
        "not base 64",
        "tsig-keygen",
    ),
    (
        ". {\n tsig {\n  require_opcode NOTIFY AXFR\n }\n}",
        3,
        "AXFR is not an opcode",
        "UPDATE",
    ),
    (
        ". {\n tsig {\n  required all\n }\n}",
        3,
        "required",
        "require_opcode",
    ),
    (
        ". {\n bufsize 99\n}",
        2,
        "is not a number from 512 to 4096",
        "whole number",
    ),
    (
        ". {\n timeouts {\n  read 1ms\n }\n}",
        3,
        "out of bounds",
        "1s to 24h",
    ),
];

#[test]
fn errors_name_place_and_remedy() {
    let environment = Arc::new(Environment::new(53));
    let mut seen = BTreeSet::new();
    for (text, line, what, remedy) in WRONG {
        let error = match Instance::build(&environment, Path::new("/nowhere/Corefile"), text) {
            Ok(_) => panic!("this is accepted: {text}"),
            Err(error) => error,
        };
        assert_eq!(error.line, *line, "{text}\n{error}");
        assert!(error.what.contains(what), "{text}\n{error}");
        assert!(error.remedy.contains(remedy), "{text}\n{error}");
        assert!(
            error.to_string().starts_with("/nowhere/Corefile:"),
            "{error}"
        );
        seen.insert(error.to_string());
    }
    assert!(seen.len() > 40);
}

#[test]
fn snippets_that_multiply_are_bounded() {
    let mut text = String::from("(s0) {\n log a a a a a a a a\n}\n");
    for index in 1..12 {
        let before = index - 1;
        let lines = format!(" import s{before}\n").repeat(10);
        text.push_str(&format!("(s{index}) {{\n{lines}}}\n"));
    }
    text.push_str(". {\n import s11\n}");
    let error = read(&text).unwrap_err();
    assert!(error.contains("words with all imports"), "{error}");
    let deep = format!(". {{\n{}", "a {\n".repeat(100_000));
    assert!(read(&deep).unwrap_err().contains("nested"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Words that mean something, in any order: read or refused, never a panic, and an error names a line of the text.
    #[test]
    fn any_words(words in prop::collection::vec(prop::sample::select(vec![
        ". ", "example.org", "{", "}", "\n", "\n", "\"", "\\", "#", ",", "import ", "(s)", "s ", "{$PORT}", "{args[0]}",
        "cache ", "forward ", "1.1.1.1 ", "log ", "whoami", " {\n", "\n}\n", ":53", "10.0.0.0/8", "tls://",
    ]), 0..60)) {
        let text = words.concat();
        let lines = u32::try_from(text.lines().count()).unwrap() + 1;
        let environment = Arc::new(Environment::new(53));
        if let Err(error) = Instance::build(&environment, Path::new("/nowhere/Corefile"), &text) {
            prop_assert!(error.line <= lines, "{}", error);
        }
    }

    #[test]
    fn any_text(text in "\\PC{0,200}") {
        let _ = read(&text);
    }
}
