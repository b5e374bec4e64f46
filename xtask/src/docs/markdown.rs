//! The parts of a Markdown page that can be checked: code blocks, shell commands, links and headings.
//!
//! Shared by `cargo xtask docs --check` and `crates/mm-cli/tests/docs.rs`, which includes this file.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

/// A Markdown page, or a TOML file whose comments are read as Markdown.
pub struct Page {
    /// The path that messages name.
    pub path: PathBuf,
    lines: Vec<String>,
    /// Comments of a TOML file that are a command, with their lines.
    command_comments: Vec<(usize, String)>,
}

/// A fenced code block.
pub struct CodeBlock {
    /// Line of the fence, from 1.
    pub line: usize,
    /// The words after the opening fence; the first is the language.
    pub info: Vec<String>,
    /// The text between the fences.
    pub text: String,
}

/// A shell command: the words after the assignments of environment variables, without redirections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Line of its first word, from 1.
    pub line: usize,
    /// The program and its arguments.
    pub words: Vec<String>,
    /// The files that output is redirected to.
    pub redirects: Vec<String>,
    /// Whether it is complete. Commands in running text (`mm embed --layer N`) may lack required arguments.
    pub complete: bool,
}

/// The programs of this workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    Mm,
    Xtask,
    Other,
}

/// What code spans and comments that are commands start with.
const PROGRAMS: &[&str] = &["mm ", "target/release/mm ", "target/debug/mm ", "cargo ", "python ", "python3 "];

impl Page {
    pub fn new(path: &Path, text: &str) -> Self {
        let lines = text.lines().map(ToOwned::to_owned).collect();
        Self { path: path.to_owned(), lines, command_comments: Vec::new() }
    }

    /// The comments of a TOML file as a page; a comment that starts with a program's name is a command.
    pub fn from_comments(path: &Path, text: &str) -> Self {
        let mut page = Self::new(path, "");
        for (n, line) in text.lines().enumerate() {
            let comment = line.strip_prefix("# ").unwrap_or_default().to_owned();
            if PROGRAMS.iter().any(|program| comment.starts_with(program)) {
                page.command_comments.push((n + 1, comment));
                page.lines.push(String::new());
            } else {
                page.lines.push(comment);
            }
        }
        page
    }

    /// Lines outside code blocks, from 1.
    fn prose(&self) -> impl Iterator<Item = (usize, &str)> {
        let mut inside = false;
        self.lines.iter().enumerate().filter_map(move |(n, line)| {
            let fence = line.trim_start().starts_with("```");
            let take = !inside && !fence;
            inside ^= fence;
            take.then_some((n + 1, line.as_str()))
        })
    }

    pub fn code_blocks(&self) -> Vec<CodeBlock> {
        let mut blocks: Vec<CodeBlock> = Vec::new();
        let mut inside = false;
        for (n, line) in self.lines.iter().enumerate() {
            if let Some(info) = line.trim_start().strip_prefix("```") {
                inside = !inside;
                if inside {
                    let info = info.split_whitespace().map(ToOwned::to_owned).collect();
                    blocks.push(CodeBlock { line: n + 1, info, text: String::new() });
                }
            } else if let Some(block) = blocks.last_mut().filter(|_| inside) {
                block.text += line;
                block.text.push('\n');
            }
        }
        blocks
    }

    /// The code spans of running text, with their lines.
    fn code_spans(&self) -> impl Iterator<Item = (usize, &str)> {
        self.prose().flat_map(|(n, line)| line.split('`').skip(1).step_by(2).map(move |span| (n, span)))
    }

    /// The options that code spans of running text start with (`--k 5`), without the dashes, with their lines.
    #[allow(dead_code)] // only crates/mm-cli/tests/docs.rs calls it
    pub fn option_spans(&self) -> Vec<(usize, &str)> {
        fn name(span: &str) -> Option<&str> {
            span.strip_prefix("--")?.split(|c: char| c != '-' && !c.is_alphanumeric()).next()
        }
        let spans = self.code_spans().filter(|(_, span)| !span.contains('…'));
        spans.filter_map(|(n, span)| Some((n, name(span)?))).filter(|(_, name)| !name.is_empty()).collect()
    }

    /// Every command of the page: those of shell blocks, and those in code spans.
    pub fn commands(&self) -> Vec<Command> {
        let mut commands = Vec::new();
        for block in self.code_blocks() {
            match block.info.first().map(String::as_str) {
                Some("sh" | "bash") => commands.extend(shell_commands(&block.text, block.line + 1)),
                Some("console") => {
                    for (n, line) in block.text.lines().enumerate() {
                        let command = line.strip_prefix("$ ").unwrap_or_default();
                        commands.extend(shell_commands(command, block.line + 1 + n));
                    }
                }
                _ => {}
            }
        }
        for (line, comment) in &self.command_comments {
            commands.extend(shell_commands(comment, *line));
        }
        for (line, span) in self.code_spans() {
            if PROGRAMS.iter().any(|program| span.starts_with(program)) {
                let spans = shell_commands(span, line).into_iter();
                commands.extend(spans.map(|c| Command { complete: false, ..c }));
            }
        }
        commands
    }

    /// Lines of commands in code blocks by indentation, which [`Page::commands`] does not read.
    pub fn indented_commands(&self) -> Vec<usize> {
        let is_command = |line: &str| {
            line.strip_prefix("    ").is_some_and(|rest| PROGRAMS.iter().any(|program| rest.starts_with(program)))
        };
        self.prose().filter(|(_, line)| is_command(line)).map(|(n, _)| n).collect()
    }

    /// The targets of links and images, with their lines.
    pub fn links(&self) -> Vec<(usize, String)> {
        let mut links = Vec::new();
        for (n, line) in self.prose() {
            let text: String = line.split('`').step_by(2).collect();
            for part in text.split("](").skip(1) {
                if let Some((target, _)) = part.split_once(')') {
                    links.push((n, target.to_owned()));
                }
            }
        }
        links
    }

    /// The anchors of its headings, as GitHub names them.
    pub fn anchors(&self) -> Vec<String> {
        let mut seen: HashMap<String, usize> = HashMap::new();
        let mut anchors = Vec::new();
        for (_, line) in self.prose() {
            let Some(title) = line.strip_prefix('#').map(|l| l.trim_start_matches('#')).filter(|l| l.starts_with(' '))
            else {
                continue;
            };
            let kept = |c: char| match c {
                ' ' => Some('-'),
                c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c),
                _ => None,
            };
            let slug: String = title.trim().to_lowercase().chars().filter_map(kept).collect();
            let count = seen.entry(slug.clone()).or_default();
            anchors.push(if *count == 0 { slug } else { format!("{slug}-{count}") });
            *count += 1;
        }
        anchors
    }

    /// `path:line: text`
    pub fn problem(&self, line: usize, text: impl std::fmt::Display) -> String {
        format!("{}:{line}: {text}", self.path.display())
    }
}

impl Command {
    /// The program that it calls, and the arguments.
    pub fn program(&self) -> (Program, &[String]) {
        let words: Vec<&str> = self.words.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["mm" | "target/release/mm" | "target/debug/mm", ..] => (Program::Mm, &self.words[1..]),
            ["cargo", "xtask", ..] => (Program::Xtask, &self.words[2..]),
            ["cargo", "run", rest @ ..] => {
                let end = rest.iter().position(|w| *w == "--").unwrap_or(rest.len());
                let names_package = |w: &&str| ["--bin", "--example", "-p", "--package"].contains(w);
                let is_mm = rest[..end].contains(&"mm-cli") || !rest[..end].iter().any(names_package);
                let arguments = &self.words[(end + 3).min(self.words.len())..];
                (if is_mm { Program::Mm } else { Program::Other }, arguments)
            }
            _ => (Program::Other, &self.words[1..]),
        }
    }

    /// What a clap definition has against its arguments.
    pub fn check(&self, definition: &clap::Command, arguments: &[String]) -> Result<(), String> {
        if self.complete && !self.words.iter().any(|w| w.contains('…')) {
            let words = std::iter::once(definition.get_name().to_owned()).chain(arguments.iter().cloned());
            let failed = definition.clone().try_get_matches_from(words).err().filter(clap::Error::use_stderr);
            return match failed {
                Some(error) => {
                    let text = error.render().to_string();
                    Err(text.lines().take_while(|l| !l.is_empty()).collect::<Vec<_>>().join(" "))
                }
                None => Ok(()),
            };
        }
        let mut definition = definition.clone();
        definition.build();
        let mut current = &definition;
        for word in arguments {
            if let Some(flag) = word.strip_prefix("--").map(|w| w.split('=').next().unwrap_or(w)) {
                let known = current.get_arguments().any(|a| a.get_long() == Some(flag));
                let passed_on = current.get_arguments().any(clap::Arg::is_allow_hyphen_values_set);
                if !flag.is_empty() && !known && !passed_on && flag != "help" {
                    return Err(format!("`{}` has no option --{flag}", current.get_bin_name().unwrap_or_default()));
                }
            } else if word.chars().all(|c| c.is_ascii_uppercase()) {
                // A placeholder.
                return Ok(());
            } else if current.has_subcommands() && !word.starts_with(['-', '…', '[']) {
                let known = current.find_subcommand(word);
                current = known.ok_or_else(|| {
                    format!("`{}` has no command {word}", current.get_bin_name().unwrap_or(current.get_name()))
                })?;
            }
        }
        Ok(())
    }
}

/// The commands of shell text whose first line has the number `first`: continuation lines, quotes, comments, `&&`, `;`,
/// `|`, redirections and `$(…)` are understood; nothing is expanded.
pub fn shell_commands(text: &str, first: usize) -> Vec<Command> {
    let mut lexer = Lexer { line: first, ..Lexer::default() };
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, lexer.quote) {
            ('\n', quote) => {
                lexer.line += 1;
                match quote {
                    Some(_) => lexer.push(c),
                    None => lexer.end_command(),
                }
            }
            (c, Some(quote)) if c == quote => lexer.quote = None,
            ('\\', Some('"')) => chars.next().into_iter().for_each(|next| lexer.push(next)),
            (c, Some(_)) => lexer.push(c),
            ('\'' | '"', None) => {
                lexer.quote = Some(c);
                lexer.word.get_or_insert_default();
            }
            ('\\', None) => match chars.next() {
                Some('\n') => lexer.line += 1,
                Some(next) => lexer.push(next),
                None => {}
            },
            ('$', None) if chars.peek() == Some(&'(') => {
                lexer.push(c);
                let mut depth = 0;
                for c in chars.by_ref() {
                    lexer.push(c);
                    depth += i32::from(c == '(') - i32::from(c == ')');
                    if depth == 0 {
                        break;
                    }
                }
            }
            ('#', None) if lexer.word.is_none() => while chars.next_if(|c| *c != '\n').is_some() {},
            ('&' | '|' | ';', None) => lexer.end_command(),
            ('>' | '<', None) => {
                lexer.end_word();
                lexer.redirect = true;
            }
            (c, None) if c.is_whitespace() => lexer.end_word(),
            (c, None) => lexer.push(c),
        }
    }
    lexer.end_command();
    lexer.commands
}

#[derive(Default)]
struct Lexer {
    line: usize,
    quote: Option<char>,
    word: Option<String>,
    redirect: bool,
    words: Vec<String>,
    redirects: Vec<String>,
    start: usize,
    commands: Vec<Command>,
}

impl Lexer {
    fn push(&mut self, c: char) {
        if self.words.is_empty() && self.word.is_none() {
            self.start = self.line;
        }
        self.word.get_or_insert_default().push(c);
    }

    fn end_word(&mut self) {
        let Some(word) = self.word.take() else { return };
        let is_assignment = || {
            let name = word.split_once('=').map(|(name, _)| name);
            name.is_some_and(|n| !n.is_empty() && n.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
        };
        if std::mem::take(&mut self.redirect) {
            self.redirects.push(word);
        } else if !self.words.is_empty() || !is_assignment() {
            self.words.push(word);
        }
    }

    fn end_command(&mut self) {
        self.end_word();
        let (words, redirects) = (std::mem::take(&mut self.words), std::mem::take(&mut self.redirects));
        if !words.is_empty() {
            self.commands.push(Command { line: self.start, words, redirects, complete: true });
        }
    }
}
