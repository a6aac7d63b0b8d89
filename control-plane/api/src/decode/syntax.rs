//! Why bytes are no JSON, in the words of Go's scanner, which users of Kubernetes know.

/// The first fault. To be asked only about bytes that don't parse.
pub(super) fn describe(bytes: &[u8]) -> String {
    let mut scanner = Scanner { bytes, at: 0 };
    match scanner.document() {
        Err(why) => why,
        // It is well formed, so it was refused for its depth or for text that is no UTF-8.
        Ok(()) if std::str::from_utf8(bytes).is_err() => "invalid UTF-8 in string".to_owned(),
        Ok(()) => "exceeded max depth".to_owned(),
    }
}

struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Open {
    Object,
    List,
}

impl Scanner<'_> {
    /// Walks without recursion: what is open is on a stack of our own.
    fn document(&mut self) -> Result<(), String> {
        let mut open: Vec<Open> = Vec::new();
        self.space();
        'value: loop {
            match self.peek()? {
                b'{' => {
                    self.at += 1;
                    self.space();
                    if self.peek()? != b'}' {
                        self.key("looking for beginning of object key string")?;
                        open.push(Open::Object);
                        continue 'value;
                    }
                    self.at += 1;
                }
                b'[' => {
                    self.at += 1;
                    self.space();
                    if self.peek()? != b']' {
                        open.push(Open::List);
                        continue 'value;
                    }
                    self.at += 1;
                }
                b'"' => self.string()?,
                b'-' | b'0'..=b'9' => self.number()?,
                b't' => self.literal("true")?,
                b'f' => self.literal("false")?,
                b'n' => self.literal("null")?,
                _ => return Err(self.fault("looking for beginning of value")),
            }
            loop {
                self.space();
                let Some(top) = open.last().copied() else {
                    return if self.at == self.bytes.len() {
                        Ok(())
                    } else {
                        Err(self.fault("after top-level value"))
                    };
                };
                let (close, context) = match top {
                    Open::Object => (b'}', "after object key:value pair"),
                    Open::List => (b']', "after array element"),
                };
                let byte = self.peek()?;
                if byte == close {
                    self.at += 1;
                    open.pop();
                    continue;
                }
                if byte != b',' {
                    return Err(self.fault(context));
                }
                self.at += 1;
                self.space();
                if top == Open::Object {
                    self.key("looking for beginning of object key string")?;
                }
                continue 'value;
            }
        }
    }

    fn key(&mut self, context: &str) -> Result<(), String> {
        if self.peek()? != b'"' {
            return Err(self.fault(context));
        }
        self.string()?;
        self.space();
        if self.peek()? != b':' {
            return Err(self.fault("after object key"));
        }
        self.at += 1;
        self.space();
        Ok(())
    }

    fn string(&mut self) -> Result<(), String> {
        self.at += 1;
        loop {
            match self.peek()? {
                b'"' => {
                    self.at += 1;
                    return Ok(());
                }
                b'\\' => {
                    self.at += 1;
                    match self.peek()? {
                        b'u' => {
                            for _ in 0..4 {
                                self.at += 1;
                                if !self.peek()?.is_ascii_hexdigit() {
                                    return Err(self.fault("in \\u hexadecimal character escape"));
                                }
                            }
                            self.at += 1;
                        }
                        b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"' => self.at += 1,
                        _ => return Err(self.fault("in string escape code")),
                    }
                }
                0..0x20 => return Err(self.fault("in string literal")),
                _ => self.at += 1,
            }
        }
    }

    fn number(&mut self) -> Result<(), String> {
        if self.bytes[self.at] == b'-' {
            self.at += 1;
        }
        if self.peek()? == b'0' {
            self.at += 1;
        } else {
            self.digits("in numeric literal")?;
        }
        if self.bytes.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digits("after decimal point in numeric literal")?;
        }
        if matches!(self.bytes.get(self.at), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.bytes.get(self.at), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits("in exponent of numeric literal")?;
        }
        Ok(())
    }

    fn digits(&mut self, context: &str) -> Result<(), String> {
        if !self.peek()?.is_ascii_digit() {
            return Err(self.fault(context));
        }
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        Ok(())
    }

    fn literal(&mut self, word: &str) -> Result<(), String> {
        for expected in word.bytes() {
            let context = format!(
                "in literal {word} (expecting {})",
                shown(char::from(expected))
            );
            if self.peek()? != expected {
                return Err(self.fault(&context));
            }
            self.at += 1;
        }
        Ok(())
    }

    fn space(&mut self) {
        while matches!(self.bytes.get(self.at), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Result<u8, String> {
        self.bytes
            .get(self.at)
            .copied()
            .ok_or_else(|| "unexpected end of JSON input".to_owned())
    }

    fn fault(&self, context: &str) -> String {
        let byte = self.bytes.get(self.at).copied().unwrap_or(0);
        format!("invalid character {} {context}", shown(char::from(byte)))
    }
}

fn shown(c: char) -> String {
    match c {
        '\'' => "'\\''".to_owned(),
        '"' => "'\"'".to_owned(),
        '\n' => "'\\n'".to_owned(),
        '\r' => "'\\r'".to_owned(),
        '\t' => "'\\t'".to_owned(),
        c if c < ' ' => format!("'\\x{:02x}'", u32::from(c)),
        c => format!("'{c}'"),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn faults_are_named() {
        for (bytes, why) in [
            (
                "{not json",
                "invalid character 'n' looking for beginning of object key string",
            ),
            ("", "unexpected end of JSON input"),
            ("{\"a\":1", "unexpected end of JSON input"),
            ("{\"a\" 1}", "invalid character '1' after object key"),
            (
                "{\"a\":1 2}",
                "invalid character '2' after object key:value pair",
            ),
            ("[1 2]", "invalid character '2' after array element"),
            ("{} x", "invalid character 'x' after top-level value"),
            ("nul", "unexpected end of JSON input"),
            (
                "nuLl",
                "invalid character 'L' in literal null (expecting 'l')",
            ),
            (
                "[1,]",
                "invalid character ']' looking for beginning of value",
            ),
            ("\"\\q\"", "invalid character 'q' in string escape code"),
            (
                "1.x",
                "invalid character 'x' after decimal point in numeric literal",
            ),
        ] {
            assert_eq!(super::describe(bytes.as_bytes()), why, "{bytes}");
        }
    }
}
