//! The query of a URL: names and values, decoded.

/// Pairs in the order sent.
#[derive(Clone, Default, Debug)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn parse(query: Option<&str>) -> Self {
        let pairs = query
            .unwrap_or_default()
            .split('&')
            .filter(|pair| !pair.is_empty());
        Query(
            pairs
                .map(|pair| {
                    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (decode(name), decode(value))
                })
                .collect(),
        )
    }

    /// The first value of that name; empty where there is none.
    pub(crate) fn text(&self, name: &str) -> &str {
        self.0
            .iter()
            .find(|(n, _)| n == name)
            .map_or("", |(_, value)| value.as_str())
    }

    /// Every value of that name.
    pub(crate) fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }

    /// Asks for objects with this value in this field only, beside what is asked for already.
    pub(crate) fn select_field(&mut self, field: &str, value: &str) {
        let term = format!("{field}={value}");
        match self.0.iter_mut().find(|(n, _)| n == "fieldSelector") {
            Some((_, selector)) if !selector.is_empty() => {
                selector.push(',');
                selector.push_str(&term);
            }
            Some((_, selector)) => *selector = term,
            None => self.0.push(("fieldSelector".to_owned(), term)),
        }
    }

    /// `None` where it is absent. As in Kubernetes all but `false` and `0` means yes.
    pub(crate) fn flag(&self, name: &str) -> Option<bool> {
        self.values(name)
            .next()
            .map(|value| !value.eq_ignore_ascii_case("false") && value != "0")
    }
}

/// Undoes percent-encoding, and `+` for a space; what is no valid encoding stays as it is.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = |i: usize| bytes.get(i).and_then(|b| char::from(*b).to_digit(16));
        match (bytes[at], hex(at + 1), hex(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                #[expect(clippy::cast_possible_truncation, reason = "two hexadecimal digits")]
                out.push((high * 16 + low) as u8);
                at += 3;
                continue;
            }
            (b'+', _, _) => out.push(b' '),
            (byte, _, _) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Undoes the percent-encoding of a segment of a path.
pub(crate) fn decode_segment(segment: &str) -> String {
    if !segment.contains('%') {
        return segment.to_owned();
    }
    decode(&segment.replace('+', "%2B"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_decoded() {
        let query = Query::parse(Some("a=b%3Dc%2Cd&watch&limit=5&a=second&x=1+2%zz&off=0"));
        assert_eq!(query.text("a"), "b=c,d");
        assert_eq!(query.values("a").count(), 2);
        assert_eq!(query.flag("watch"), Some(true));
        assert_eq!(query.flag("off"), Some(false));
        assert_eq!(query.flag("none"), None);
        assert_eq!(query.text("x"), "1 2%zz");
        assert_eq!(decode_segment("a+b%2Fc"), "a+b/c");
        for (sent, expected) in [
            ("", "metadata.name=x"),
            ("fieldSelector=", "metadata.name=x"),
            ("fieldSelector=type%3Da", "type=a,metadata.name=x"),
        ] {
            let mut query = Query::parse(Some(sent));
            query.select_field("metadata.name", "x");
            assert_eq!(query.text("fieldSelector"), expected, "{sent}");
        }
    }
}
