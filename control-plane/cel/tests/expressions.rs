//! Expressions against values: what they come to, what is refused, what they cost.

use std::sync::Arc;

use cel::Program;
use cel::types::{Decl, DeclKind, FieldDecl, ListKind, Type, escape};
use cel::value::{Value, wrap};
use proptest::prelude::*;
use serde_json::{Value as Json, json};

fn decl(kind: DeclKind, max: u64) -> Arc<Decl> {
    Arc::new(Decl { kind, max })
}

fn list(items: Arc<Decl>, list: ListKind, max: u64) -> Arc<Decl> {
    decl(DeclKind::List { items, list }, max)
}

fn object(fields: &[(&str, Arc<Decl>)]) -> Arc<Decl> {
    let mut fields: Vec<FieldDecl> = fields
        .iter()
        .map(|(name, decl)| FieldDecl {
            escaped: escape(name).unwrap().into(),
            name: (*name).into(),
            decl: decl.clone(),
        })
        .collect();
    fields.sort_by(|a, b| a.escaped.cmp(&b.escaped));
    let kind = DeclKind::Object {
        name: "object".into(),
        fields: fields.into(),
    };
    decl(kind, 1 << 20)
}

fn text() -> Arc<Decl> {
    decl(DeclKind::String, 256)
}

fn shape() -> Arc<Decl> {
    let item = object(&[("name", text()), ("port", decl(DeclKind::Int, 1))]);
    object(&[
        ("s", text()),
        ("n", decl(DeclKind::Int, 1)),
        ("d", decl(DeclKind::Double, 1)),
        ("b", decl(DeclKind::Bool, 1)),
        ("names", list(text(), ListKind::Atomic, 100)),
        ("set", list(text(), ListKind::Set, 100)),
        ("items", list(item, ListKind::Atomic, 100)),
        ("labels", decl(DeclKind::Map(text()), 100)),
        ("either", decl(DeclKind::IntOrString, 100)),
        ("at", decl(DeclKind::Timestamp, 1)),
        ("span", decl(DeclKind::Duration, 1)),
        ("in", text()),
        ("a-b", text()),
        ("absent", text()),
    ])
}

fn value() -> Json {
    json!({
        "s": "hello world", "n": 7, "d": 1.5, "b": true, "names": ["b", "a", "c"], "set": ["x", "y"],
        "items": [{"name": "one", "port": 80}, {"name": "two", "port": 443}],
        "labels": {"app": "web", "tier": "front"}, "either": "80%", "at": "2024-02-29T12:30:00Z", "span": "1h30m",
        "in": "reserved", "a-b": "dashed",
    })
}

fn run(source: &str, json: &Json) -> Result<bool, String> {
    let decl = shape();
    let program = Program::compile(source, &[("self", decl.clone(), false)], &Type::Bool)?;
    let (outcome, _) = program.evaluate(vec![("self", wrap(json, &decl))], 1_000_000);
    match outcome {
        Ok(Value::Bool(flag)) => Ok(flag),
        Ok(other) => Err(format!("{other:?}")),
        Err(failure) => Err(failure.0),
    }
}

#[test]
fn what_is_true() {
    let json = value();
    for source in include_str!("true.txt").lines() {
        if source.is_empty() || source.starts_with('#') {
            continue;
        }
        assert_eq!(run(source, &json), Ok(true), "{source}");
    }
}

#[test]
fn what_is_refused_before_it_runs() {
    let cases = [
        ("self.nope", "undefined field 'nope'"),
        ("nope", "undeclared reference to 'nope' (in container '')"),
        (
            "1 + 'a' == 2",
            "found no matching overload for '_+_' applied to '(int, string)'",
        ),
        (
            "self.s.foo()",
            "undeclared reference to 'foo' (in container '')",
        ),
        (
            "self.s.contains(1)",
            "found no matching overload for 'contains' applied to 'string.(int)'",
        ),
        ("self.n", "must evaluate to a bool"),
        (
            "self.n.all(x, true)",
            "expression of type 'int' cannot be range of a comprehension",
        ),
        (
            "self.names.all(x, 1)",
            "expected type 'bool' but found 'int'",
        ),
        ("[1, 'a'] == [1]", "expected type 'int' but found 'string'"),
        (
            "self.s == 1",
            "found no matching overload for '_==_' applied to '(string, int)'",
        ),
        ("1 +", "Syntax error"),
        ("'abc", "Syntax error"),
        ("has(self)", "invalid argument to has() macro"),
        ("9223372036854775808 == 1", "invalid int literal"),
        ("18446744073709551616u == 1u", "invalid uint literal"),
        ("1e400 > 0.0", "invalid double literal"),
        (
            "1 == 1.0",
            "found no matching overload for '_==_' applied to '(int, double)'",
        ),
        (
            "self.d != 1",
            "found no matching overload for '_!=_' applied to '(double, int)'",
        ),
        (
            "1 in [1.0]",
            "found no matching overload for '@in' applied to '(int, list(double))'",
        ),
        // Of versions of the library that Kubernetes does not have.
        (
            "'abc'.reverse() == ''",
            "found no matching overload for 'reverse' applied to 'string.()'",
        ),
        (
            "self.s.matches('(')",
            "1:16: invalid matches argument\n | self.s.matches('(')\n | ...............^",
        ),
        ("matches('(', 'a')", "1:9: invalid matches argument"),
        (
            "duration('x') == self.span",
            "1:10: invalid duration argument",
        ),
        (
            "timestamp('x') == self.at",
            "1:11: invalid timestamp argument",
        ),
        (
            "timestamp('2024-02-29') == self.at",
            "1:11: invalid timestamp argument",
        ),
    ];
    for (source, expected) in cases {
        let why = run(source, &value()).unwrap_err();
        assert!(why.contains(expected), "{source}: {why}");
    }
    let why = run("true &&\n self.nope", &value()).unwrap_err();
    assert_eq!(
        why,
        "compilation failed: ERROR: <input>:2:6: undefined field 'nope'\n |  self.nope\n | .....^"
    );
}

#[test]
fn what_fails_when_it_runs() {
    let cases = [
        ("1 / 0 == 1", "division by zero"),
        ("self.names[7] == 'a'", "index out of bounds: 7"),
        ("self.labels['x'] == 'a'", "no such key: x"),
        ("self.absent == 'a'", "no such key: absent"),
        ("9223372036854775807 + 1 > 0", "integer overflow"),
        (
            "optional.none().value() == 1",
            "optional.none() dereference",
        ),
        ("self.either > 1", "no such overload"),
        ("timestamp(self.s) == self.at", "type conversion error"),
        ("dyn('abc').reverse() == ''", "no such overload"),
        ("url('x').getHost() == ''", "URL parse error"),
    ];
    for (source, expected) in cases {
        let why = run(source, &value()).unwrap_err();
        assert!(why.contains(expected), "{source}: {why}");
    }
}

#[test]
fn work_and_depth_are_bounded() {
    let json = json!({"names": vec!["x"; 100]});
    let limit = "operation cancelled: actual cost limit exceeded";
    let deep = "self.names.all(a, self.names.all(b, self.names.all(c, self.names.all(d, a == b))))";
    assert_eq!(run(deep, &json), Err(limit.into()));
    let doubling = format!("'a'{}.size() > 0", ".replace('a', 'aaaaaaaaaa')".repeat(20));
    assert_eq!(run(&doubling, &json), Err(limit.into()));
    let hostile = [
        "(".repeat(10_000),
        "-".repeat(10_001) + "1",
        "!".repeat(10_001),
        "[".repeat(5000),
        "1+".repeat(5000) + "1",
        "a.b".repeat(3000),
        "a[".repeat(3000),
        "{'a':".repeat(3000),
        "x?".repeat(3000),
        "true&&".repeat(9000) + "true",
    ];
    for source in hostile {
        let _ = run(&source, &json);
    }
}

#[test]
fn estimates_are_those_of_kubernetes() {
    // How many texts of a length `self.all(x, x.contains('gpu'))` may go over before it is refused.
    for (length, most) in [(16, 909_090), (63, 333_333), (253, 94_339), (1024, 24_154)] {
        for (count, accepted) in [(most, true), (most + 2, false)] {
            let of = list(decl(DeclKind::String, length * 4), ListKind::Atomic, count);
            let source = "self.all(x, x.contains('gpu'))";
            let program = Program::compile(source, &[("self", of, false)], &Type::Bool).unwrap();
            let taken = program.cost <= cel::cost::ESTIMATE_MAX;
            assert_eq!(taken, accepted, "{length} {count}: {}", program.cost);
        }
    }
}

proptest! {
    #[test]
    fn nothing_makes_it_panic(source in "[ a-z0-9.()\\[\\]{}'\"+*/<>=!&|?:,%-]{0,60}") {
        let _ = run(&source, &value());
    }

    #[test]
    fn pieces_in_any_order_make_no_panic(pieces in prop::collection::vec(prop::sample::select(vec![
        "self", ".s", ".names", ".items", ".labels", ".all(x, ", ".map(x, ", ".filter(k, ", "x", "k", ")", " == ",
        " && ", " + ", "'a'", "1", "[", "]", "{", "}", ":", ",", "?", ".size()", ".matches('a')", "has(", ".?absent",
        ".orValue(", "in", "-", "!", ".split('')", ".join()", "duration('1s')", "quantity('1')", ".substring(1, 0)",
        ".charAt(9)", ".format([", "b'\\xff'",
    ]), 0..14)) {
        let _ = run(&pieces.concat(), &value());
    }
}
