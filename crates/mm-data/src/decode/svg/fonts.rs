//! Fonts for the text in drawings: those of the system.

use resvg::usvg::{FontResolver, fontdb};
use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, Ordering},
};

/// What text could not be drawn.
#[derive(Debug, Default)]
pub(super) struct MissingText {
    no_font: AtomicBool,
    no_glyph: AtomicBool,
}

impl MissingText {
    /// What to report.
    pub fn note(&self) -> Option<String> {
        if self.no_font.load(Ordering::Relaxed) {
            return Some(
                "its text is left out: no font is installed (Debian: apt-get install fonts-dejavu-core)".into(),
            );
        }
        let no_glyph = self.no_glyph.load(Ordering::Relaxed);
        no_glyph.then(|| "some of its characters are left out: no installed font has them".into())
    }
}

/// The system's fonts, read once. Generic families stand for the first of their kind that is installed.
pub(super) fn system_fonts() -> Arc<fontdb::Database> {
    static FONTS: OnceLock<Arc<fontdb::Database>> = OnceLock::new();
    FONTS
        .get_or_init(|| {
            let mut fonts = fontdb::Database::new();
            fonts.load_system_fonts();
            let serif = family(&fonts, &["Times New Roman", "Liberation Serif", "DejaVu Serif", "Noto Serif"]);
            let sans = family(&fonts, &["Arial", "Liberation Sans", "DejaVu Sans", "Noto Sans", "Helvetica"]);
            let mono = family(&fonts, &["Courier New", "Liberation Mono", "DejaVu Sans Mono", "Noto Sans Mono"]);
            fonts.set_serif_family(&serif);
            fonts.set_sans_serif_family(&sans);
            fonts.set_cursive_family(&sans);
            fonts.set_fantasy_family(&sans);
            fonts.set_monospace_family(mono);
            Arc::new(fonts)
        })
        .clone()
}

/// The first of these families that is installed, or any.
fn family(fonts: &fontdb::Database, names: &[&str]) -> String {
    let has = |name: &str| fonts.faces().any(|face| face.families.iter().any(|(family, _)| family == name));
    let any = || fonts.faces().find_map(|face| face.families.first()).map(|(family, _)| family.clone());
    names.iter().find(|name| has(name)).map(|name| (*name).to_owned()).or_else(any).unwrap_or_default()
}

/// Finds the font for a text, any font where there is no similar one, and notes what is missing.
pub(super) fn resolver(missing: &Arc<MissingText>) -> FontResolver<'static> {
    let (for_fonts, for_glyphs) = (missing.clone(), missing.clone());
    let (select_font, select_fallback) =
        (FontResolver::default_font_selector(), FontResolver::default_fallback_selector());
    FontResolver {
        select_font: Box::new(move |font, fonts| {
            let found = select_font(font, fonts).or_else(|| fonts.faces().next().map(|face| face.id));
            for_fonts.no_font.fetch_or(found.is_none(), Ordering::Relaxed);
            found
        }),
        select_fallback: Box::new(move |character, used, fonts| {
            let found = select_fallback(character, used, fonts);
            for_glyphs.no_glyph.fetch_or(found.is_none(), Ordering::Relaxed);
            found
        }),
    }
}
