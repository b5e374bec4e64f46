//! Abbreviations that keep their full stop.

/// Followed by a sentence, they get another full stop of their own.
pub(super) const AT_SENTENCE_END: &[&str] = &[
    "al", "ala", "apr", "ariz", "assn", "aug", "bancorp", "bhd", "bldg", "blvd", "bros", "calif", "co", "colo", "conn",
    "corp", "cos", "ct", "dak", "dec", "ed.d", "esq", "est", "etc", "ext", "feb", "fla", "fri", "ga", "inc", "ind",
    "intl", "jan", "jr", "jul", "jun", "kan", "kans", "ky", "ltd", "mar", "md", "mich", "minn", "mo", "mon", "mont",
    "neb", "nev", "nov", "oct", "okla", "penn", "ph.d", "plc", "ppte", "pptes", "ppty", "pptys", "pte", "ptes", "pty",
    "ptys", "rd", "rt", "sep", "sept", "seq", "sq", "sr", "sys", "tel", "tenn", "thu", "thurs", "tue", "tues", "univ",
    "va", "vt", "wed", "wis", "wisc", "wyo",
];

/// As [`AT_SENTENCE_END`], where they begin with a capital letter.
pub(super) const CAPITALIZED: &[&str] = &["ark", "az", "del", "ill", "la", "mass", "miss", "ore", "pa", "tex", "wash"];

/// Titles and others that do not end a sentence.
pub(super) const WITHIN_SENTENCE: &[&str] = &[
    "adj", "adm", "adv", "alex", "assoc", "asst", "atty", "attys", "ave", "brig", "capt", "cf", "cie", "cmdr", "col",
    "comdr", "cpl", "dept", "det", "dr", "drs", "elec", "ens", "ft", "gen", "gov", "govs", "hon", "insp", "invt",
    "jos", "lieut", "lt", "maj", "messrs", "mfg", "mlle", "mme", "mr", "mrs", "ms", "msgr", "mt", "mtg", "natl", "pfc",
    "ph", "pres", "prof", "profs", "pvt", "rep", "reps", "rev", "sen", "sens", "sfc", "sgt", "spc", "st", "ste",
    "supt", "supts", "treas", "vs", "wm",
];

/// They keep their full stop where a number follows.
pub(super) const BEFORE_NUMBER: &[&str] = &["ca", "no", "op", "pp", "art", "fig", "nos", "figs", "prop"];

/// Compounds of acronyms.
pub(super) const COMPOUND_ACRONYMS: &[&str] =
    &["canada-u.s", "eu-u.s", "japan-u.s", "korean-u.s", "non-u.s", "sino-u.s", "u.s.-u.k", "u.s.-u.s.s.r"];

/// Words that begin a sentence after an acronym, which then gets a full stop of its own.
pub(super) const SENTENCE_STARTERS: &[&str] = &[
    "a",
    "an",
    "as",
    "at",
    "he",
    "if",
    "in",
    "it",
    "so",
    "we",
    "but",
    "her",
    "now",
    "one",
    "our",
    "she",
    "the",
    "yet",
    "you",
    "here",
    "last",
    "many",
    "more",
    "once",
    "some",
    "such",
    "that",
    "then",
    "they",
    "this",
    "what",
    "when",
    "about",
    "according",
    "additionally",
    "after",
    "earlier",
    "however",
    "other",
    "since",
    "their",
    "there",
    "these",
    "while",
    "mr",
    "ms",
];
