//! Chat templates: Jinja with Python's string methods.

use chrono::Local;
use minijinja::{Environment, Error as TemplateError, ErrorKind, Value, context, escape_formatter};
use serde_json::Value as Json;
use std::{
    fmt::Write as _,
    io::Write,
    sync::atomic::{AtomicUsize, Ordering},
};

/// Limit on the steps of a template, so that one with an endless loop fails.
const FUEL: u64 = 10_000_000;
/// The longest prompt that a template may write, in bytes: far beyond the positions of any model.
const MAX_OUTPUT: usize = 16 << 20;

/// Renders a conversation up to the start of the model's turn.
pub(crate) fn render(template: &str, messages: &Json, bos_token: &str, eos_token: &str) -> Result<String, String> {
    render_template(template, messages, bos_token, eos_token).map_err(|e| format!("{e:#}"))
}

fn render_template(template: &str, messages: &Json, bos_token: &str, eos_token: &str) -> Result<String, TemplateError> {
    let mut environment = Environment::new();
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.set_fuel(Some(FUEL));
    // Counts what `{% set %}` and macros write as well, which does not reach the output.
    let written = AtomicUsize::new(0);
    environment.set_formatter(move |out, state, value| {
        let length = value.as_str().map_or_else(|| value.to_string().len(), str::len);
        if written.fetch_add(length, Ordering::Relaxed).saturating_add(length) > MAX_OUTPUT {
            return Err(too_long());
        }
        escape_formatter(out, state, value)
    });
    environment.set_unknown_method_callback(python_method);
    environment.add_function("raise_exception", |text: String| -> Result<String, TemplateError> {
        Err(TemplateError::new(ErrorKind::InvalidOperation, text))
    });
    environment.add_function("strftime_now", strftime_now);
    environment.add_template("chat", template)?;
    let values = context! {
        messages => Value::from_serialize(messages),
        add_generation_prompt => true,
        add_vision_id => false,
        bos_token,
        eos_token,
    };
    let mut prompt = Prompt::default();
    let rendered = environment.get_template("chat")?.render_captured_to(values, &mut prompt).map(drop);
    if prompt.is_too_long {
        return Err(too_long());
    }
    rendered?;
    String::from_utf8(prompt.bytes).map_err(|e| TemplateError::new(ErrorKind::InvalidOperation, e.to_string()))
}

/// What a template writes, up to [`MAX_OUTPUT`].
#[derive(Default)]
struct Prompt {
    bytes: Vec<u8>,
    is_too_long: bool,
}

impl Write for Prompt {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.is_too_long |= self.bytes.len() + bytes.len() > MAX_OUTPUT;
        if self.is_too_long {
            return Err(std::io::Error::other("the prompt is too long"));
        }
        self.bytes.extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn too_long() -> TemplateError {
    let reason = format!("found a text of more than {MAX_OUTPUT} bytes, expected at most that");
    TemplateError::new(ErrorKind::InvalidOperation, reason)
}

/// The local time in a format of strftime, as transformers gives it to templates.
fn strftime_now(format: &str) -> Result<String, TemplateError> {
    let mut text = String::new();
    if let Ok(()) = write!(text, "{}", Local::now().format(format)) {
        Ok(text)
    } else {
        let reason = format!("strftime_now: found the format `{format}`, expected one of strftime");
        Err(TemplateError::new(ErrorKind::InvalidOperation, reason))
    }
}

fn unknown_method(name: &str) -> TemplateError {
    TemplateError::new(ErrorKind::UnknownMethod, format!("method `{name}` is not supported in chat templates"))
}

/// Methods of Python's strings and dictionaries that templates use.
fn python_method(
    _: &minijinja::State<'_, '_>,
    value: &Value,
    name: &str,
    arguments: &[Value],
) -> Result<Value, TemplateError> {
    if let Some(text) = value.as_str() {
        return string_method(text, name, arguments);
    }
    match name {
        "items" => Ok(value
            .try_iter()?
            .map(|key| Value::from(vec![key.clone(), value.get_item(&key).unwrap_or_default()]))
            .collect()),
        "keys" => Ok(value.try_iter()?.collect()),
        "get" => {
            let key = arguments.first().ok_or_else(|| unknown_method(name))?;
            let found = value.get_item(key)?;
            Ok(if found.is_undefined() { arguments.get(1).cloned().unwrap_or(Value::from(())) } else { found })
        }
        _ => Err(unknown_method(name)),
    }
}

fn string_method(text: &str, name: &str, arguments: &[Value]) -> Result<Value, TemplateError> {
    let argument = |n: usize| arguments.get(n).and_then(|a| a.as_str().map(ToOwned::to_owned));
    let chars = argument(0);
    let stripped = |c: char| chars.as_ref().map_or(c.is_whitespace(), |set| set.contains(c));
    Ok(match name {
        "strip" => Value::from(text.trim_matches(stripped)),
        "lstrip" => Value::from(text.trim_start_matches(stripped)),
        "rstrip" => Value::from(text.trim_end_matches(stripped)),
        "upper" => Value::from(text.to_uppercase()),
        "lower" => Value::from(text.to_lowercase()),
        "title" | "capitalize" => {
            let mut letters = text.chars();
            let first: String = letters.next().map(|c| c.to_uppercase().collect()).unwrap_or_default();
            Value::from(first + &letters.as_str().to_lowercase())
        }
        "startswith" => Value::from(argument(0).is_some_and(|a| text.starts_with(&a))),
        "endswith" => Value::from(argument(0).is_some_and(|a| text.ends_with(&a))),
        "replace" => {
            let (old, new) = (argument(0).unwrap_or_default(), argument(1).unwrap_or_default());
            if text.len().saturating_add(text.matches(&old).count().saturating_mul(new.len())) > MAX_OUTPUT {
                return Err(too_long());
            }
            Value::from(text.replace(&old, &new))
        }
        "split" => match argument(0) {
            Some(by) if !by.is_empty() => text.split(by.as_str()).collect::<Value>(),
            _ => text.split_whitespace().collect::<Value>(),
        },
        _ => return Err(unknown_method(name)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn templates_get_the_date_of_today_and_bad_formats_are_errors() {
        let render = |template: &str| render(template, &json!([]), "", "");
        let before = Local::now().format("%d %b %Y").to_string();
        let found = render("{{ strftime_now('%d %b %Y') }}").unwrap();
        let after = Local::now().format("%d %b %Y").to_string();
        assert!(found == before || found == after, "{found}");
        assert!(render("{{ strftime_now('%Q') }}").unwrap_err().contains("strftime_now"));
    }

    #[test]
    fn what_a_template_writes_is_bounded() {
        let render = |template: &str| render(template, &json!([{"content": "x".repeat(10_000)}]), "", "");
        let error = |template: &str| format!("{:#}", render(template).unwrap_err());
        let thousand = "{% for i in range(1000) %}{{ messages[0].content }}{% endfor %}";
        assert_eq!(render(thousand).unwrap().len(), 10_000_000);
        for template in [
            format!("{thousand}{thousand}"),
            // Text of the template itself.
            format!("{{% for i in range(9999) %}}{}{{% endfor %}}", "text ".repeat(500)),
            format!("{{% set a %}}{thousand}{{% endset %}}{{% set b %}}{{{{ a }}}}{{{{ a }}}}{{% endset %}}"),
            "{{ messages[0].content.replace('x', messages[0].content) }}".to_owned(),
        ] {
            let error = error(&template);
            assert!(error.contains("more than 16777216 bytes"), "{error}");
        }
        assert!(error("{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}").contains("fuel"));
    }
}
