//! The language of templates: a part of Go's text/template.
//!
//! ```text
//! template  = { TEXT | "{{" action "}}" }            "{{-" and "-}}" trim the white space beside them
//! action    = pipe | VARIABLE (":=" | "=") pipe | ("if" | "with" | "range") condition
//!           | "else" [("if" | "with") condition] | "end" | "break" | "continue" | "/*" ... "*/"
//! condition = [VARIABLE ["," VARIABLE] ":="] pipe
//! pipe      = command { "|" command }                the value becomes the next command's last argument
//! command   = FUNCTION { operand } | operand [operand]
//! operand   = "." | ".Field{.Field}" | "$" | VARIABLE{.Field} | STRING | NUMBER
//!           | "(" pipe ")"{.Field}
//! ```
//!
//! Functions: see [`functions::FUNCTIONS`]. `define`, `template` and methods are left out.

mod evaluate;
mod functions;
mod parse;

use std::collections::BTreeMap;

/// A value in a template.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Text(String),
    Number(i64),
    Bool(bool),
    List(Vec<Value>),
    Map(BTreeMap<String, Value>),
    /// Has the fields that it has: another is an error, where what a map lacks is empty.
    Struct(BTreeMap<String, Value>),
}

/// A template, read.
#[derive(Clone, Debug)]
pub(super) struct Template(Vec<parse::Node>);

impl Template {
    /// Reads a template.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        parse::parse(text).map(Self)
    }

    /// Fills it in.
    pub(super) fn render(&self, data: &Value) -> Result<String, String> {
        evaluate::render(&self.0, data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data() -> Value {
        let text = |text: &str| Value::Text(text.to_owned());
        let header = Value::Struct([("Id".to_owned(), Value::Number(7))].into());
        Value::Struct(
            [
                ("MsgHdr".to_owned(), header.clone()),
                ("All".to_owned(), Value::List(vec![header])),
                ("Name".to_owned(), text("ip-10-0-0-1.example.")),
                (
                    "Match".to_owned(),
                    Value::List(vec![text("all"), text("10"), text("255")]),
                ),
                (
                    "Group".to_owned(),
                    Value::Map([("a".to_owned(), text("10"))].into()),
                ),
            ]
            .into(),
        )
    }

    #[test]
    fn rendered() {
        let table = [
            (
                "{{ .Name }} 60 IN A {{ .Group.a }}.0.0.1",
                "ip-10-0-0-1.example. 60 IN A 10.0.0.1",
            ),
            ("{{ index .Match 1 }}", "10"),
            ("{{ index .Match 2 | printf \"%5s|\" }}", "  255|"),
            ("{{ printf \"%02x\" (parseInt .Group.a 10 64) }}", "0a"),
            (
                "{{ if eq .Group.a \"10\" \"11\" }}yes{{ else }}no{{ end }}",
                "yes",
            ),
            (
                "{{ if .Group.b }}yes{{ else if len .Match }}list{{ end }}",
                "list",
            ),
            (
                "{{ range .Match }}[{{ . }}{{ $.Group.a }}]{{ end }}",
                "[all10][1010][25510]",
            ),
            ("a {{- .Group.a -}} b", "a10b"),
            ("a {{- /* note */ -}} b", "ab"),
            ("{{ not (and true false) }} {{ or \"\" \"x\" }}", "true x"),
            ("{{ gt (parseInt \"7f\" 16 8) 100 }}", "true"),
            ("{{ $a := .Group.a }}{{ $b:=2 }}{{ $a }}/{{ $b }}", "10/2"),
            (
                "{{ $n := 0 }}{{ range $i, $e := .Match }}{{ $n = $i }}{{ $e }},{{ end }}{{ $n }}",
                "all,10,255,2",
            ),
            (
                "{{ range $e := .Match }}{{ $e }}{{ break }}{{ end }}",
                "all",
            ),
            (
                "{{ range $i, $e := .Match }}{{ if eq $i 1 }}{{ continue }}{{ end }}{{ $e }};{{ end }}",
                "all;255;",
            ),
            (
                "{{ with .Group }}{{ .a }}{{ $.Name }}{{ end }}",
                "10ip-10-0-0-1.example.",
            ),
            (
                "{{ with $x := .Group.b }}{{ $x }}{{ else }}none{{ end }}",
                "none",
            ),
            (
                "{{ with .Group.b }}b{{ else with .Group.a }}a{{ . }}{{ end }}",
                "a10",
            ),
            ("{{ if $x := .Group.a }}{{ $x }}{{ end }}", "10"),
            ("{{ $g := .Group }}{{ $g.a }}", "10"),
            (
                "{{ slice .Name 0 2 }}{{ slice (slice .Match 1) 0 1 }}",
                "ip[10]",
            ),
            ("{{ index .Group \"a\" }}{{ println 1 \"a\" }}", "101 a\n"),
            ("{{ urlquery \"a b/ü\" }}", "a+b%2F%C3%BC"),
            ("{{ print 1 2 }}{{ print 1 \"a\" 2 true }}", "1 21a2 true"),
            ("{{ urlquery 1 2 }}", "1+2"),
            (
                "{{ (index .All 0).Id }}{{ .MsgHdr.Id }}{{ with (index .All 0) }}{{ .Id }}{{ end }}",
                "777",
            ),
            ("{{ $g := .Group }}[{{ $g.b }}]{{ (.Group).a }}", "[]10"),
        ];
        for (template, expected) in table {
            let rendered = Template::parse(template).and_then(|template| template.render(&data()));
            assert_eq!(rendered.as_deref(), Ok(expected), "{template}");
        }
    }

    #[test]
    fn refused() {
        let table = [
            ("{{ .Name", "{{ is never closed"),
            (
                "{{ end }}",
                "{{end}} or {{else}} without {{if}}, {{with}} or {{range}}",
            ),
            (
                "{{ if .Name }}",
                "{{if}}, {{with}} or {{range}} without {{end}}",
            ),
            ("{{ $x }}", "there is no variable $x"),
            ("{{ $x = 1 }}", "there is no variable $x"),
            (
                "{{ if true }}{{ $x := 1 }}{{ end }}{{ $x }}",
                "there is no variable $x",
            ),
            (
                "{{ range $a, $b, $c := .Match }}{{ end }}",
                "is not what := can set",
            ),
            ("{{ break }}", "unknown function break"),
            ("{{ slice .Name 3 99 }}", "there is no part 3:99"),
            ("{{ range .Name }}{{ end }}", "range over what is no list"),
            (
                "{{ range 999 }}{{ range 999 }}{{ end }}{{ end }}",
                "does too much",
            ),
            ("{{ shout .Name }}", "unknown function shout"),
            ("{{ .Nobody }}", "there is no .Nobody"),
            ("{{ .MsgHdr.Nobody }}", "there is no .Nobody"),
            ("{{ (index .All 0).Nobody }}", "there is no .Nobody"),
            ("{{ (index .All 0) .Id }}", "there is no .Id"),
            ("{{ .MsgHdr \"Id\" }}", "arguments to what is no function"),
            ("{{ index .Match 9 }}", "there is no element 9 of 3"),
            ("{{ ( .Name }}", "a parenthesis is never closed"),
            ("{{ }}", "an empty action"),
            ("{{ printf \"%s\" }}", "fewer values than verbs"),
        ];
        for (template, expected) in table {
            let rendered = Template::parse(template).and_then(|template| template.render(&data()));
            let error = rendered.expect_err(template);
            assert!(error.contains(expected), "{template}: {error}");
        }
        let deep = "{{ if true }}".repeat(1000);
        assert!(Template::parse(&deep).is_err());
    }
}
