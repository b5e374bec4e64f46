//! The fields of a body, from its JSON schema.

use serde_json::Value;

/// A field of a body.
pub(super) struct Field {
    /// Its name, after those of the objects that it is in; `[]` stands for the items of a list.
    pub(super) name: String,
    /// Its type, in the words of JSON.
    pub(super) kind: String,
    pub(super) required: bool,
    pub(super) description: String,
    /// Number of objects that it is in, below the body.
    pub(super) depth: usize,
}

/// Objects in objects that are described.
const MAX_DEPTH: usize = 3;

/// The fields of a schema and of the objects in it; those that are required come first.
pub(super) fn fields(document: &Value, schema: &Value) -> Vec<Field> {
    let mut out = Vec::new();
    let (object, suffix) = inner(document, schema);
    let prefix = if suffix.is_empty() { String::new() } else { format!("{suffix}.") };
    add_fields(document, object, &prefix, 0, &mut out);
    out
}

fn add_fields(document: &Value, schema: &Value, prefix: &str, depth: usize, out: &mut Vec<Field>) {
    let mut of_object = properties(document, schema);
    of_object.sort_by_key(|(_, _, required)| !required);
    for (name, property, required) in of_object {
        let field = format!("{prefix}{name}");
        out.push(Field {
            name: field.clone(),
            kind: kind(document, property),
            required,
            description: description(document, property),
            depth,
        });
        if depth < MAX_DEPTH {
            let (object, suffix) = inner(document, property);
            add_fields(document, object, &format!("{field}{suffix}."), depth + 1, out);
        }
    }
}

/// The fields of an object, and whether each is required.
fn properties<'a>(document: &'a Value, schema: &'a Value) -> Vec<(&'a str, &'a Value, bool)> {
    let schema = resolve(document, schema);
    let parts = schema["allOf"].as_array().into_iter().flatten();
    let mut out: Vec<_> = parts.flat_map(|part| properties(document, part)).collect();
    let is_required =
        |name: &str| schema["required"].as_array().is_some_and(|names| names.iter().any(|one| one == name));
    let own = schema["properties"].as_object().into_iter().flatten();
    out.extend(own.map(|(name, property)| (name.as_str(), property, is_required(name))));
    out
}

/// The object that a value is, or that the items of its lists are, with the suffix of its name.
fn inner<'a>(document: &'a Value, schema: &'a Value) -> (&'a Value, String) {
    let schema = resolve(document, schema);
    let schema = resolve(document, alternatives(schema).next().unwrap_or(schema));
    match schema.get("items") {
        Some(items) => {
            let (object, suffix) = inner(document, items);
            (object, format!("[]{suffix}"))
        }
        None => (schema, String::new()),
    }
}

/// What a field is: its own words, else those of its type.
fn description(document: &Value, schema: &Value) -> String {
    let own = schema["description"].as_str();
    let of_type = || alternatives(schema).find_map(|one| resolve(document, one)["description"].as_str());
    own.or_else(of_type).or_else(|| resolve(document, schema)["description"].as_str()).unwrap_or_default().to_owned()
}

/// The schemas of which a value has one; null counts as absent.
fn alternatives(schema: &Value) -> impl Iterator<Item = &Value> {
    let lists = ["oneOf", "anyOf"].into_iter().filter_map(|name| schema[name].as_array());
    lists.flatten().filter(|one| one["type"] != "null")
}

/// The type of a value in the words of JSON.
pub(super) fn kind(document: &Value, schema: &Value) -> String {
    let schema = resolve(document, schema);
    let mut kinds: Vec<String> = alternatives(schema).map(|one| kind(document, one)).collect();
    if kinds.is_empty() {
        let names = match &schema["type"] {
            Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
            name => name.as_str().into_iter().collect::<Vec<_>>(),
        };
        kinds = names.into_iter().filter(|name| *name != "null").map(|name| one_kind(document, schema, name)).collect();
    }
    kinds.dedup();
    match kinds.as_slice() {
        [] if schema["allOf"].is_array() => "object".to_owned(),
        [] => "any value".to_owned(),
        kinds => kinds.join(" or "),
    }
}

fn one_kind(document: &Value, schema: &Value, name: &str) -> String {
    if let Some(values) = schema["enum"].as_array() {
        return values.iter().map(|value| format!("`{value}`")).collect::<Vec<_>>().join(" or ");
    }
    match name {
        "array" => match kind(document, &schema["items"]) {
            items if items.contains(" or ") => format!("list of ({items})"),
            items => format!("list of {items}"),
        },
        "string" if schema["format"] == "binary" => "file".to_owned(),
        name => name.to_owned(),
    }
}

/// A schema, or the one that it refers to.
fn resolve<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    let pointer = schema["$ref"].as_str().and_then(|reference| reference.strip_prefix('#'));
    pointer.and_then(|pointer| document.pointer(pointer)).unwrap_or(schema)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_are_named_with_the_objects_that_they_are_in() {
        let document = json!({"components": {"schemas": {
            "Options": {"type": "object", "properties": {"k": {"type": ["integer", "null"], "description": "how many"}}},
            "Item": {"type": "object", "required": ["id"], "properties": {"id": {"type": "string"}}},
            "Mode": {"type": "string", "enum": ["a", "b"], "description": "the mode"},
        }}});
        let reference = |name: &str| json!({"$ref": format!("#/components/schemas/{name}")});
        let body = json!({"allOf": [reference("Options"), {"type": "object", "required": ["items"], "properties": {
            "items": {"type": "array", "items": reference("Item")},
            "mode": {"oneOf": [reference("Mode"), {"type": "null"}]},
            "text": {"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
        }}]});
        let found: Vec<_> = fields(&document, &body)
            .into_iter()
            .map(|field| (field.name, field.kind, field.required, field.description, field.depth))
            .collect();
        let row = |name: &str, kind: &str, required, description: &str, depth| {
            (name.to_owned(), kind.to_owned(), required, description.to_owned(), depth)
        };
        assert_eq!(
            found,
            [
                row("items", "list of object", true, "", 0),
                row("items[].id", "string", true, "", 1),
                row("k", "integer", false, "how many", 0),
                row("mode", "`\"a\"` or `\"b\"`", false, "the mode", 0),
                row("text", "string or list of string", false, "", 0),
            ]
        );
        let ranks = json!({"type": "array", "items": reference("Item")});
        assert_eq!(fields(&document, &ranks)[0].name, "[].id");
        let mixed = json!({"type": "array", "items": {"oneOf": [{"type": "string"}, {"type": "number"}]}});
        assert_eq!(kind(&document, &mixed), "list of (string or number)");
    }
}
