//! The same documents as one of OpenAPI v2 (Swagger), which kubectl before 1.29 reads before it applies, explains or
//! validates, and all of them for kinds that no v3 document knows. In JSON, and in the protobuf form of
//! github.com/google/gnostic-models `openapiv2/OpenAPIv2.proto`, which is what they ask for.

use serde_json::{Map, Value, json};

/// Says the v3 documents again as one of v2.
pub(super) fn document(v3: &[Value]) -> Value {
    let (mut paths, mut definitions) = (Map::new(), Map::new());
    for document in v3 {
        for (path, item) in fields(&document["paths"]) {
            paths.insert(path.clone(), path_item(item));
        }
        for (name, body) in fields(&document["components"]["schemas"]) {
            definitions.insert(name.clone(), schema(body));
        }
    }
    json!({
        "swagger": "2.0",
        "info": {"title": "Fairlead", "version": env!("CARGO_PKG_VERSION")},
        "paths": paths,
        "definitions": definitions,
    })
}

/// Adds what somebody else's document has below `root`, and definitions under names that are free.
pub(super) fn add(document: &mut Value, root: &str, other: &Value) {
    let below = |path: &str| {
        path.strip_prefix(root)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    for (path, item) in fields(&other["paths"]).filter(|(path, _)| below(path)) {
        document["paths"][path] = item.clone();
    }
    for (name, body) in fields(&other["definitions"]) {
        if document["definitions"].get(name).is_none() {
            document["definitions"][name] = body.clone();
        }
    }
}

fn fields(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn path_item(v3: &Value) -> Value {
    let mut item = Map::new();
    for (key, value) in fields(v3) {
        let value = if key == "parameters" {
            parameters(value).into()
        } else {
            operation(value)
        };
        item.insert(key.clone(), value);
    }
    Value::Object(item)
}

fn parameters(v3: &Value) -> Vec<Value> {
    let flat = |parameter: &Value| {
        let mut parameter = parameter.clone();
        let schema = parameter.as_object_mut().and_then(|p| p.remove("schema"));
        for (key, value) in fields(&schema.unwrap_or_default()) {
            parameter[key] = value.clone();
        }
        parameter
    };
    items(v3).iter().map(flat).collect()
}

fn operation(v3: &Value) -> Value {
    let mut operation = v3.clone();
    let mut parameters = parameters(&v3["parameters"]);
    if let Some(body) = operation
        .as_object_mut()
        .and_then(|o| o.remove("requestBody"))
    {
        let contents = fields(&body["content"]);
        operation["consumes"] = contents.map(|(media, _)| media.as_str()).collect();
        if let Some((_, content)) = fields(&body["content"]).next() {
            let body = json!({"name": "body", "in": "body", "required": true, "schema": schema(&content["schema"])});
            parameters.push(body);
        }
    }
    operation["parameters"] = parameters.into();
    let mut responses = Map::new();
    for (code, response) in fields(&v3["responses"]) {
        let mut answer = json!({"description": response["description"]});
        if let Some((_, content)) = fields(&response["content"]).next() {
            answer["schema"] = schema(&content["schema"]);
        }
        responses.insert(code.clone(), answer);
    }
    operation["responses"] = responses.into();
    operation["produces"] = json!(["application/json"]);
    operation
}

/// A schema: references point elsewhere and may have a description beside them; alternatives are strings.
fn schema(v3: &Value) -> Value {
    let mut schema = Map::new();
    for (key, value) in fields(v3) {
        match key.as_str() {
            "$ref" => {
                let name = value
                    .as_str()
                    .and_then(|reference| reference.rsplit('/').next())
                    .unwrap_or_default();
                schema.insert(key.clone(), format!("#/definitions/{name}").into());
            }
            "allOf" => schema.extend(
                items(value)
                    .iter()
                    .flat_map(|one| fields(&self::schema(one)).map(own).collect::<Vec<_>>()),
            ),
            "oneOf" => {
                schema.insert("type".into(), "string".into());
            }
            "properties" => {
                let properties =
                    fields(value).map(|(name, property)| (name.clone(), self::schema(property)));
                schema.insert(key.clone(), Value::Object(properties.collect()));
            }
            "items" | "additionalProperties" if value.is_object() => {
                schema.insert(key.clone(), self::schema(value));
            }
            "default" if *value == json!({}) => {}
            _ => {
                schema.insert(key.clone(), value.clone());
            }
        }
    }
    Value::Object(schema)
}

fn own((key, value): (&String, &Value)) -> (String, Value) {
    (key.clone(), value.clone())
}

/// The document in protobuf.
pub(super) fn encode(document: &Value) -> Vec<u8> {
    let info = &document["info"];
    let mut paths = Message::default();
    for (path, item) in fields(&document["paths"]) {
        paths.message(2, named(path, encode_path(item)));
    }
    let mut out = Message::default();
    out.text(1, &document["swagger"]);
    out.message(
        2,
        Message::texts(&[(1, &info["title"]), (2, &info["version"])]),
    );
    out.message(8, paths);
    out.message(9, named_schemas(&document["definitions"]));
    out.0
}

fn encode_path(item: &Value) -> Message {
    let mut out = Message::default();
    for (number, verb) in [
        (2, "get"),
        (3, "put"),
        (4, "post"),
        (5, "delete"),
        (8, "patch"),
    ] {
        if item[verb].is_object() {
            out.message(number, encode_operation(&item[verb]));
        }
    }
    for parameter in items(&item["parameters"]) {
        out.message(9, encode_parameter(parameter));
    }
    out
}

fn encode_operation(operation: &Value) -> Message {
    let mut out = Message::default();
    for tag in items(&operation["tags"]) {
        out.text(1, tag);
    }
    out.text(3, &operation["description"]);
    out.text(5, &operation["operationId"]);
    for media in items(&operation["produces"]) {
        out.text(6, media);
    }
    for media in items(&operation["consumes"]) {
        out.text(7, media);
    }
    for parameter in items(&operation["parameters"]) {
        out.message(8, encode_parameter(parameter));
    }
    let mut responses = Message::default();
    for (code, response) in fields(&operation["responses"]) {
        let mut answer = Message::texts(&[(1, &response["description"])]);
        if response["schema"].is_object() {
            answer.message(2, Message::of(1, encode_schema(&response["schema"])));
        }
        responses.message(1, named(code, Message::of(1, answer)));
    }
    out.message(9, responses);
    out.extensions(13, operation);
    out
}

/// A `ParametersItem`: a parameter in the body, in the query or in the path.
fn encode_parameter(parameter: &Value) -> Message {
    let mut out = Message::default();
    let parameter = match parameter["in"].as_str() {
        Some("body") => {
            out.texts_into(&[
                (1, &parameter["description"]),
                (2, &parameter["name"]),
                (3, &parameter["in"]),
            ]);
            out.flag(4, &parameter["required"]);
            out.message(5, encode_schema(&parameter["schema"]));
            Message::of(1, out)
        }
        place => {
            let in_path = place == Some("path");
            out.flag(1, &parameter["required"]);
            out.texts_into(&[
                (2, &parameter["in"]),
                (3, &parameter["description"]),
                (4, &parameter["name"]),
            ]);
            let (kind, unique, form) = if in_path { (5, 19, 4) } else { (6, 20, 3) };
            out.text(kind, &parameter["type"]);
            out.flag(unique, &parameter["uniqueItems"]);
            Message::of(2, Message::of(form, out))
        }
    };
    Message::of(1, parameter)
}

fn encode_schema(schema: &Value) -> Message {
    let mut out = Message::default();
    out.texts_into(&[
        (1, &schema["$ref"]),
        (2, &schema["format"]),
        (4, &schema["description"]),
    ]);
    if let Some(default) = schema.get("default") {
        out.message(5, any(default));
    }
    for name in items(&schema["required"]) {
        out.text(19, name);
    }
    if schema["additionalProperties"].is_object() {
        out.message(
            21,
            Message::of(1, encode_schema(&schema["additionalProperties"])),
        );
    }
    if schema["type"].is_string() {
        out.message(22, Message::texts(&[(1, &schema["type"])]));
    }
    if schema["items"].is_object() {
        out.message(23, Message::of(1, encode_schema(&schema["items"])));
    }
    if schema["properties"].is_object() {
        out.message(25, named_schemas(&schema["properties"]));
    }
    out.extensions(31, schema);
    out
}

fn named_schemas(schemas: &Value) -> Message {
    let mut out = Message::default();
    for (name, schema) in fields(schemas) {
        out.message(1, named(name, encode_schema(schema)));
    }
    out
}

/// An entry of what is a map in JSON.
fn named(name: &str, value: Message) -> Message {
    let mut out = Message::default();
    out.bytes(1, name.as_bytes());
    out.message(2, value);
    out
}

/// Any value, as YAML, which JSON is.
fn any(value: &Value) -> Message {
    let mut out = Message::default();
    out.bytes(2, value.to_string().as_bytes());
    out
}

/// A protobuf message being written. What is absent is left out.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn of(number: u64, inner: Self) -> Self {
        let mut out = Self::default();
        out.message(number, inner);
        out
    }

    fn texts(texts: &[(u64, &Value)]) -> Self {
        let mut out = Self::default();
        out.texts_into(texts);
        out
    }

    fn texts_into(&mut self, texts: &[(u64, &Value)]) {
        texts
            .iter()
            .for_each(|(number, text)| self.text(*number, text));
    }

    fn text(&mut self, number: u64, text: &Value) {
        if let Some(text) = text.as_str() {
            self.bytes(number, text.as_bytes());
        }
    }

    fn flag(&mut self, number: u64, flag: &Value) {
        if flag == true {
            self.varint(number << 3);
            self.varint(1);
        }
    }

    #[expect(
        clippy::needless_pass_by_value,
        reason = "a message goes into one place"
    )]
    fn message(&mut self, number: u64, message: Self) {
        self.bytes(number, &message.0);
    }

    fn bytes(&mut self, number: u64, bytes: &[u8]) {
        self.varint(number << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend(bytes);
    }

    /// The `x-` fields.
    fn extensions(&mut self, number: u64, value: &Value) {
        for (name, value) in fields(value).filter(|(name, _)| name.starts_with("x-")) {
            self.message(number, named(name, any(value)));
        }
    }

    fn varint(&mut self, mut value: u64) {
        while value > 0x7f {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::RESOURCES;

    fn walk(value: &Value, visit: &mut impl FnMut(&str, &Value)) {
        for (key, value) in fields(value) {
            visit(key, value);
            walk(value, visit);
        }
        items(value).iter().for_each(|item| walk(item, visit));
    }

    #[test]
    fn every_reference_has_a_target_and_nothing_of_v3_is_left() {
        let document: Value =
            serde_json::from_slice(&crate::openapi::v2_document().json.bytes).unwrap();
        let mut references = 0;
        walk(&document, &mut |key, value| {
            assert!(
                !matches!(
                    key,
                    "oneOf" | "allOf" | "requestBody" | "content" | "components"
                ),
                "{key}"
            );
            if key == "$ref" {
                let name = value
                    .as_str()
                    .unwrap()
                    .strip_prefix("#/definitions/")
                    .unwrap();
                assert!(document["definitions"][name].is_object(), "{name}");
                references += 1;
            }
        });
        assert!(references > 500, "{references}");
    }

    /// What kubectl looks for before it leaves validation to the server.
    #[test]
    fn every_kind_can_be_patched_with_field_validation() {
        let document: Value =
            serde_json::from_slice(&crate::openapi::v2_document().json.bytes).unwrap();
        for row in RESOURCES.iter().filter(|r| r.verbs.contains(&"patch")) {
            let wanted = json!({"group": row.group, "version": row.version, "kind": row.kind});
            let found = fields(&document["paths"]).any(|(_, item)| {
                let patch = &item["patch"];
                let parameters = items(&patch["parameters"]);
                patch["x-kubernetes-group-version-kind"] == wanted
                    && parameters.iter().any(|p| {
                        p["name"] == "fieldValidation"
                            && p["in"] == "query"
                            && p["type"] == "string"
                    })
                    && parameters.iter().any(|p| p["in"] == "body")
            });
            assert!(found, "{}", row.kind);
        }
    }

    #[test]
    fn protobuf_is_as_the_format_has_it() {
        let document = json!({
            "swagger": "2.0",
            "info": {"title": "t", "version": "v"},
            "definitions": {"A": {"type": "string", "description": "d", "x-a": [1]}},
            "paths": {"/p": {"get": {
                "operationId": "o",
                "parameters": [{"name": "n", "in": "query", "type": "boolean", "required": true}],
                "responses": {"200": {"description": "OK", "schema": {"$ref": "#/definitions/A"}}},
            }}},
        });
        let schema =
            b"\x22\x01d\xb2\x01\x08\x0a\x06string\xfa\x01\x0c\x0a\x03x-a\x12\x05\x12\x03[1]";
        let parameter = b"\x0a\x19\x12\x17\x1a\x15\x08\x01\x12\x05query\x22\x01n\x32\x07boolean";
        let response =
            b"\x0a\x03200\x12\x1b\x0a\x19\x0a\x02OK\x12\x13\x0a\x11\x0a\x0f#/definitions/A";
        let part =
            |number: u8, bytes: &[u8]| [&[number << 3 | 2, bytes.len() as u8], bytes].concat();
        let responses = part(9, &part(1, response));
        let operation = [part(5, b"o"), part(8, parameter), responses].concat();
        let path = [part(1, b"/p"), part(2, &part(2, &operation))].concat();
        let definition = [part(1, b"A"), part(2, schema)].concat();
        let wanted = [
            part(1, b"2.0"),
            part(2, &[part(1, b"t"), part(2, b"v")].concat()),
            part(8, &part(2, &path)),
            part(9, &part(1, &definition)),
        ]
        .concat();
        assert_eq!(
            encode(&document).escape_ascii().to_string(),
            wanted.escape_ascii().to_string()
        );
    }
}
