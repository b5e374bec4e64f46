//! Tokenizers of checkpoint folders, in all layouts.

use crate::bytes::{folder, select, write};
use mm_core::{ProcessContext, Source};
use mm_data::process_catching_panics;
use mm_reason::pretrained::Tokenizer;
use mm_repr::text::TextProcessor;

const VOCAB_TXT: &[u8] = b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\ndog\n##s\nthe\n,\n";
const VOCAB_JSON: &[u8] =
    br#"{"<s>": 0, "</s>": 1, "<pad>": 2, "<unk>": 3, "<mask>": 4, "d": 5, "o": 6, "g": 7, "do": 8, "dog": 9}"#;
const MERGES: &[u8] = b"#version: 0.2\nd o\ndo g\n";

/// The file that the input is, and the files next to it.
const KINDS: [(&str, &[(&str, &[u8])]); 10] = [
    ("tokenizer.json", &[]),
    ("vocab.txt", &[]),
    ("tokenizer_config.json", &[("vocab.txt", VOCAB_TXT)]),
    ("added_tokens.json", &[("vocab.txt", VOCAB_TXT)]),
    ("special_tokens_map.json", &[("vocab.txt", VOCAB_TXT)]),
    ("sentencepiece.bpe.model", &[]),
    ("spiece.model", &[]),
    ("vocab.json", &[("merges.txt", MERGES)]),
    ("merges.txt", &[("vocab.json", VOCAB_JSON)]),
    ("config_sentence_transformers.json", &[("vocab.txt", VOCAB_TXT)]),
];

/// Loads the tokenizer, encodes a text and decodes its tokens.
pub fn read(input: &[u8]) {
    let Some(((name, others), bytes)) = select(&KINDS, input) else { return };
    let folder = folder();
    for (name, contents) in *others {
        write(folder.path(), name, contents);
    }
    write(folder.path(), name, bytes);
    let text = "The dogs, Dogs\u{e9} 狗 123.";
    if let Ok(processor) = TextProcessor::from_folder(folder.path(), 16) {
        let source = Source::Text(text.into());
        if let Ok(ids) = process_catching_panics(&processor, &source, &mut ProcessContext::eval()) {
            assert!(ids.numel() <= 16, "{} tokens", ids.numel());
        }
        let _ = processor.vocab_size();
    }
    if let Ok(tokenizer) = Tokenizer::open(folder.path())
        && let Ok(ids) = tokenizer.encode(text, true)
    {
        let _ = tokenizer.decode(&ids);
    }
}
