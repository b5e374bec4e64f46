//! Drawings are drawn, or refused in bounded time and memory.

use super::{fonts, render::decode};
use crate::decode::{ImageLimits, decode_image_bytes};
use image::{Rgb, RgbImage};
use std::io::Write;

const HEAD: &str = "<svg xmlns=\"http://www.w3.org/2000/svg\" xmlns:xlink=\"http://www.w3.org/1999/xlink\" width=\"100\" \
                    height=\"100\" viewBox=\"0 0 100 100\">";
const RED: Rgb<u8> = Rgb([255, 0, 0]);
const WHITE: Rgb<u8> = Rgb([255, 255, 255]);

fn limits() -> ImageLimits {
    ImageLimits { svg_width: 100, ..ImageLimits::default() }
}

/// The drawing of what stands between `<svg …>` and `</svg>`, and the notes about it.
fn draw(content: &str) -> Result<(RgbImage, Vec<String>), String> {
    let mut notes = Vec::new();
    let image = decode(format!("{HEAD}{content}</svg>").as_bytes(), &limits(), &mut notes)?;
    Ok((image, notes))
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap()
}

fn refused(content: &str, expected: &str) {
    let started = std::time::Instant::now();
    let error = draw(content).unwrap_err();
    assert!(error.contains(expected), "{error}");
    assert!(started.elapsed().as_secs() < 20, "{expected}");
}

#[test]
fn plain_compressed_and_declared_encodings_are_drawn() {
    let rect = format!("{HEAD}<rect width='60' height='60' fill='red'/></svg>");
    let latin = [b"<?xml version='1.0' encoding='ISO-8859-1'?><!-- \xe9 -->".as_slice(), rect.as_bytes()].concat();
    let wide: Vec<u8> = std::iter::once(0xfeff).chain(rect.encode_utf16()).flat_map(u16::to_le_bytes).collect();
    for bytes in [rect.as_bytes().to_vec(), gzip(rect.as_bytes()), latin, wide] {
        let image = decode_image_bytes(&bytes, &limits()).unwrap();
        assert_eq!((*image.get_pixel(30, 30), *image.get_pixel(80, 80)), (RED, WHITE));
    }
    assert!(decode_image_bytes(&gzip(&[b'x'; 1000]), &limits()).unwrap_err().contains("supported format"));
}

#[test]
fn what_unpacks_to_too_much_is_refused() {
    let bomb = gzip(format!("{HEAD}{}</svg>", " ".repeat(70 << 20)).as_bytes());
    assert!(bomb.len() < 1 << 20);
    assert!(decode_image_bytes(&bomb, &limits()).unwrap_err().contains("more than 67108864 bytes"));
}

#[test]
fn any_depth_is_drawn_or_refused() {
    let nested =
        |depth: usize, tag: &str| format!("{}{}", format!("<{tag}>").repeat(depth), format!("</{tag}>").repeat(depth));
    draw(&nested(400, "g")).unwrap();
    for depth in [600, 20_000, 1_000_000] {
        refused(&nested(depth, "g"), "nested more than 512 deep");
    }
    refused(&nested(20_000, "text"), "nested more than 512 deep");
    // Elements that are not closed, and `>` in values.
    refused(&"<g a='>'>".repeat(20_000), "nested more than 512 deep");
    let chain: String = (1..6000).rev().map(|i| format!("<g id='a{i}'><use href='#a{}'/></g>", i - 1)).collect();
    refused(&format!("{chain}<g id='a0'/>"), "in a row");
}

#[test]
fn references_that_expand_to_too_much_are_refused() {
    let bomb = |first: &str, open: &str, close: &str, one: &dyn Fn(usize) -> String| {
        let level = |i: usize| format!("{}{}{close}", open.replace("ID", &format!("a{i}")), one(i - 1).repeat(10));
        format!("<defs>{first}{}</defs>", (1..9).map(level).collect::<String>())
    };
    let first = "<g id='a0'><rect width='1' height='1'/></g>";
    let uses = bomb(first, "<g id='ID'>", "</g>", &|i| format!("<use href='#a{i}'/>"));
    refused(&format!("{uses}<use xlink:href='#a8'/>"), "expands to");
    let rect = |attribute: String| format!("<rect width='9' height='9' {attribute}/>");
    let masks = bomb("<mask id='a0'><rect width='1' height='1'/></mask>", "<mask id='ID'>", "</mask>", &|i| {
        rect(format!("mask='url(#a{i})'"))
    });
    refused(&format!("{masks}{}", rect("style='mask:url(#a8)'".into())), "expands to");
    let patterns =
        bomb("<pattern id='a0' width='1' height='1'/>", "<pattern id='ID' width='1' height='1'>", "</pattern>", &|i| {
            rect(format!("fill='url(#a{i})'"))
        });
    refused(&format!("<style>.x{{fill:url(#a8)}}</style>{patterns}{}", rect("class='x'".into())), "expands to");
    let marker = format!("<marker id='m'>{}</marker>", "<path d='M0 0'/>".repeat(100));
    refused(&format!("{marker}<g marker-mid='url(#m)'><path d='M0 0{}'/></g>", "L1 1".repeat(20_000)), "expands to");
    // A circle of two branches would expand 2¹⁰²⁴ times.
    let circle = |a: &str, b: &str| format!("<g id='{a}'><use href='#{b}'/><use href='#{b}'/></g>");
    refused(&[circle("a", "b"), circle("b", "c"), circle("c", "a")].concat(), "refers to itself");
    // Links and animations are not drawn, and may point at what they stand in.
    draw("<g id='x'><a href='#x'><rect width='9' height='9'/></a></g>").unwrap();
}

#[test]
fn entities_are_bounded() {
    let with = |entities: &str, content: &str| {
        let text = format!("<!DOCTYPE svg [{entities}]>{HEAD}{content}</svg>");
        decode_image_bytes(text.as_bytes(), &limits())
    };
    let image = with("<!ENTITY c 'red'> <!-- ]> -->", "<rect width='60' height='60' fill='&c;'/>").unwrap();
    assert_eq!(*image.get_pixel(30, 30), RED);
    let lol: String = (1..10).map(|i| format!("<!ENTITY a{i} '{}'>", format!("&a{};", i - 1).repeat(10))).collect();
    assert!(with(&format!("<!ENTITY a0 'lol'>{lol}"), "<text>&a9;</text>").is_err());
    let long = format!("<!ENTITY a '{}'>", "x".repeat(100_000));
    assert!(with(&long, &"<g a='&a;'/>".repeat(1000)).unwrap_err().contains("entities may expand"));
    assert!(with("<!ENTITY f SYSTEM 'file:///etc/hostname'>", "<text>&f;</text>").unwrap_err().contains("files"));
    assert!(with(&format!("<!ENTITY g '{}'>", "<g>".repeat(9000)), "&g;").is_err());
}

#[test]
fn work_and_memory_are_bounded() {
    refused("<path d='M0 0 L 1e9 1e9' stroke='red' stroke-dasharray='0.0001 0.0001'/>", "dashes");
    let filter = |content: &str| {
        format!(
            "<filter id='f' x='0' y='0' width='1' height='1'>{content}</filter><rect filter='url(#f)' width='100' height='100'/>"
        )
    };
    draw(&filter("<feGaussianBlur stdDeviation='100000'/>")).unwrap();
    refused(&filter("<feGaussianBlur stdDeviation='1e9'/>"), "a blur of");
    refused(&filter("<feTurbulence baseFrequency='0.1' numOctaves='100000000'/>"), "pixels of work");
    refused(&filter(&"<feMorphology radius='50'/>".repeat(100)), "pixels of work");
    let layers = |count: usize| {
        format!("{}<rect width='100' height='100'/>{}", "<g opacity='0.9'>".repeat(count), "</g>".repeat(count))
    };
    draw(&layers(20)).unwrap();
    let wide = ImageLimits { svg_width: 5000, ..ImageLimits::default() };
    let text = format!("{HEAD}{}</svg>", layers(300));
    assert!(decode_image_bytes(text.as_bytes(), &wide).unwrap_err().contains("expected at most"));
    let pattern =
        "<pattern id='p' width='1e6' height='1e6' patternUnits='userSpaceOnUse'><rect width='1' height='1'/></pattern>";
    refused(&format!("{pattern}<rect width='9' height='9' fill='url(#p)'/>"), "pixels of work");
    let thin = "<svg xmlns='http://www.w3.org/2000/svg' width='1' height='10000000'/>";
    assert!(decode_image_bytes(thin.as_bytes(), &limits()).unwrap_err().contains("pixels"));
}

#[test]
fn nothing_outside_is_read_and_what_is_left_out_is_noted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("red.png");
    RgbImage::from_pixel(8, 8, RED).save(&path).unwrap();
    let (image, notes) = draw(&format!("<image width='100' height='100' href='{}'/>", path.display())).unwrap();
    assert!(image.pixels().all(|p| *p == WHITE));
    assert!(notes.len() == 1 && notes[0].contains("red.png"), "{notes:?}");
    let bytes: String = std::fs::read(&path).unwrap().iter().map(|b| format!("%{b:02x}")).collect();
    let (image, notes) = draw(&format!("<image width='100' height='100' href='data:image/png,{bytes}'/>")).unwrap();
    let Rgb([r, g, b]) = *image.get_pixel(50, 50);
    assert!(r > 250 && g < 5 && b < 5 && notes.is_empty(), "{notes:?}");
    // A drawing inside a drawing has the same bounds.
    let inner = format!("<svg xmlns='http://www.w3.org/2000/svg'>{}</svg>", "<g>".repeat(900))
        .replace('<', "%3c")
        .replace('#', "%23");
    let (_, notes) = draw(&format!("<image width='100' height='100' href=\"data:image/svg+xml,{inner}\"/>")).unwrap();
    assert!(notes.len() == 1 && notes[0].contains("512 deep"), "{notes:?}");
}

#[test]
fn text_is_drawn_or_its_absence_noted() {
    for family in ["", "font-family='No Such Font'", "font-family='serif'"] {
        let (image, notes) = draw(&format!("<text x='10' y='60' font-size='40' {family}>STOP</text>")).unwrap();
        let is_drawn = image.pixels().any(|p| *p != WHITE);
        assert_eq!(is_drawn, !fonts::system_fonts().is_empty(), "{family}");
        assert_eq!(is_drawn, notes.is_empty(), "{notes:?}");
    }
    // A character that no font has (a noncharacter).
    let (_, notes) = draw("<text y='60' font-size='40'>&#xfdd0;</text>").unwrap();
    assert_eq!(notes.len(), 1, "{notes:?}");
    refused(&format!("<text>{}</text>", "word ".repeat(30_000)), "bytes of text");
}
