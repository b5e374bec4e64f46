//! Commands of curl that send the examples of the description.

use super::ADDRESS;
use serde_json::Value;
use std::fmt::Write;

/// A command that sends a request.
pub(super) fn curl(method: &str, path: &str, operation: &Value, needs_key: bool) -> String {
    let mut command = format!("curl {}", quoted(&format!("{ADDRESS}{}", url(path, operation))));
    if needs_key {
        command += " \\\n  -H 'Authorization: Bearer KEY'";
    }
    let content = &operation["requestBody"]["content"];
    if let Some(form) = content.get("multipart/form-data") {
        for (name, value) in form["example"].as_object().into_iter().flatten() {
            let value = value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
            let _ = write!(command, " \\\n  -F {}", quoted(&format!("{name}={value}")));
        }
        return command;
    }
    for (name, value) in headers(operation) {
        let _ = write!(command, " \\\n  -H {}", quoted(&format!("{name}: {value}")));
    }
    match content.get("application/json") {
        Some(body) => {
            command += " \\\n  -H 'Content-Type: application/json'";
            let _ = write!(command, " \\\n  -d {}", quoted(&body["example"].to_string()));
        }
        None if method != "get" => {
            let _ = write!(command, " \\\n  -X {}", method.to_uppercase());
        }
        None => {}
    }
    command
}

/// The headers that a request needs, with their examples.
fn headers(operation: &Value) -> impl Iterator<Item = (&str, &str)> {
    let parameters = operation["parameters"].as_array().into_iter().flatten();
    let headers = parameters.filter(|parameter| parameter["in"] == "header" && parameter["required"] == true);
    headers.filter_map(|header| Some((header["name"].as_str()?, header["example"].as_str()?)))
}

/// The path of a request: a parameter in it, and in its query those that it needs, are their names in capitals.
fn url(path: &str, operation: &Value) -> String {
    let (mut url, mut query) = (path.to_owned(), Vec::new());
    for parameter in operation["parameters"].as_array().into_iter().flatten() {
        let name = parameter["name"].as_str().unwrap_or_default();
        let value = name.to_uppercase();
        if parameter["in"] == "path" {
            url = url.replace(&format!("{{{name}}}"), &value);
        } else if parameter["in"] == "query" && parameter["required"] == true {
            query.push(format!("{name}={value}"));
        }
    }
    if query.is_empty() { url } else { format!("{url}?{}", query.join("&")) }
}

/// A word of a shell that is taken as it is.
fn quoted(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:{}@=".contains(&byte);
    if word.bytes().all(is_plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn commands_quote_what_a_shell_would_change() {
        let body = json!({"requestBody": {"content": {"application/json": {"example": {"inputs": "it's"}}}}});
        let command = curl("post", "/embed", &body, false);
        let expected =
            "curl {{address}}/embed \\\n  -H 'Content-Type: application/json' \\\n  -d '{\"inputs\":\"it'\\''s\"}'";
        assert_eq!(command, expected);
        let form = json!({"requestBody": {"content": {"multipart/form-data": {"example": {"file": "@speech.wav"}}}}});
        let command = curl("post", "/a", &form, true);
        assert_eq!(command, "curl {{address}}/a \\\n  -H 'Authorization: Bearer KEY' \\\n  -F file=@speech.wav");
        let query = json!({"parameters": [
            {"name": "id", "in": "query", "required": true}, {"name": "field", "in": "query", "required": true},
            {"name": "model", "in": "path", "required": true},
        ]});
        assert_eq!(curl("get", "/media/{model}", &query, false), "curl '{{address}}/media/MODEL?id=ID&field=FIELD'");
    }
}
