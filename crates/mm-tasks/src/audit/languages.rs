//! Texts in a script that their language is not written in. Scripts are certain without a language model, which could
//! not decide one short caption anyway.

use super::{Problem, ProblemKind, RowAudit};
use mm_core::{Modality, Source};
use mm_data::Manifest;
use std::collections::BTreeMap;

pub(super) fn find_language_mismatches(manifest: &Manifest, rows: &[usize], audited: &mut [RowAudit]) {
    for (index, row) in rows.iter().enumerate() {
        let row = &manifest.rows[*row];
        let (Some(values), Some(languages)) = (row.values.get(&Modality::TEXT), row.languages.get(&Modality::TEXT))
        else {
            continue;
        };
        for (value, language) in values.iter().zip(languages) {
            let (Source::Text(text), Some(language)) = (value, language) else { continue };
            if let (Some(found), Some(expected)) = (script_of(text), script_for(language))
                && found != expected
            {
                let detail = format!("marked {language}, which is written in {expected}, but “{text}” is in {found}");
                audited[index].problems.push(Problem { kind: ProblemKind::Language, detail });
            }
        }
    }
}

/// The script of most letters of a text; of equally frequent ones the last by name.
fn script_of(text: &str) -> Option<&'static str> {
    let mut counts: BTreeMap<&'static str, usize> = BTreeMap::new();
    for letter in text.chars().filter(|c| c.is_alphabetic()) {
        let script = match letter as u32 {
            0x41..=0x24f | 0x1e00..=0x1eff => "Latin",
            0x370..=0x3ff | 0x1f00..=0x1fff => "Greek",
            0x400..=0x52f => "Cyrillic",
            0x590..=0x5ff => "Hebrew",
            0x600..=0x6ff | 0x750..=0x77f => "Arabic",
            0x900..=0x97f => "Devanagari",
            0x3040..=0x30ff | 0x4e00..=0x9fff => "Han or kana",
            0xac00..=0xd7af => "Hangul",
            0xe00..=0xe7f => "Thai",
            _ => continue,
        };
        *counts.entry(script).or_default() += 1;
    }
    counts.into_iter().max_by_key(|(_, count)| *count).map(|(script, _)| script)
}

/// The script that a language is written in, where there is only one.
fn script_for(language: &str) -> Option<&'static str> {
    let base = language.split(['-', '_', '@']).next().unwrap_or(language);
    if language.contains("latin") {
        return Some("Latin");
    }
    Some(match base {
        "ru" | "be" | "bg" | "uk" | "mk" | "kk" | "mn" => "Cyrillic",
        "el" => "Greek",
        "he" => "Hebrew",
        "ar" | "fa" | "ur" => "Arabic",
        "hi" | "mr" | "ne" => "Devanagari",
        "ja" | "zh" => "Han or kana",
        "ko" => "Hangul",
        "th" => "Thai",
        "en" | "fr" | "de" | "es" | "it" | "pt" | "nl" | "ca" | "da" | "sv" | "nb" | "nn" | "fi" | "pl" | "cs"
        | "sk" | "ro" | "hu" | "tr" | "gl" | "eu" | "cy" | "ga" | "is" | "et" | "lt" | "lv" | "sl" | "hr" | "af"
        | "vi" => "Latin",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_of_texts_and_languages_are_recognized() {
        assert_eq!(
            (script_of("Жаба, a!"), script_of("ένα a"), script_of("123")),
            (Some("Cyrillic"), Some("Greek"), None)
        );
        // As many Latin as Cyrillic letters: the last by name, every time.
        assert!((0..50).all(|_| script_of("ab вг") == Some("Latin")));
        assert_eq!(
            (script_for("ru"), script_for("en_GB"), script_for("sr@latin"), script_for("xx")),
            (Some("Cyrillic"), Some("Latin"), Some("Latin"), None)
        );
    }
}
