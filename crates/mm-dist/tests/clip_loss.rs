//! The contrastive loss over the rows of two processes equals open_clip's `ClipLoss` with `local_loss` and
//! `gather_with_grad`.
#![allow(missing_docs)]

use mm_align::contrastive::{InfoNceOptions, Similarity, info_nce};
use mm_core::{Device, Tensor};

/// What `xtask/parity/clip_loss.py` wrote.
fn fixture() -> serde_json::Value {
    serde_json::from_str(include_str!("fixtures/clip_loss.json")).unwrap()
}

/// `[rows, dim]` of a process.
fn rows(fixture: &serde_json::Value, name: &str, rank: usize) -> Vec<Vec<f32>> {
    serde_json::from_value(fixture[name][rank].clone()).unwrap()
}

fn largest_difference(found: &Tensor, expected: &[Vec<f32>]) -> f32 {
    let found = found.to_vec::<f32>().unwrap();
    let expected: Vec<f32> = expected.concat();
    assert_eq!(found.len(), expected.len());
    found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn the_loss_of_two_processes_is_that_of_open_clip() {
    let expected = fixture();
    let number = |name: &str| expected[name].as_f64().unwrap();
    let temperature = 1.0 / number("scale");
    let found = mm_dist::spawn_local(2, |group| {
        let leaf = |name: &str| -> mm_core::Result<Tensor> {
            let rows = rows(&expected, name, group.rank());
            Tensor::from_vec(&rows.concat(), &[rows.len() as i64, rows[0].len() as i64])?.set_requires_grad(true)
        };
        let (images, texts) = (leaf("images")?, leaf("texts")?);
        let (all_images, all_texts) = (group.gather_rows(&images)?.values, group.gather_rows(&texts)?.values);
        let loss = Similarity::cosine(&all_images, &all_texts)
            .and_then(|similarity| info_nce(&similarity, temperature, InfoNceOptions::default()))
            .map_err(|e| mm_core::Error::Other(Box::new(e)))?;
        loss.backward()?;
        let gradient =
            |leaf: &Tensor, name: &str| largest_difference(&leaf.grad().unwrap(), &rows(&expected, name, group.rank()));
        let differences = [gradient(&images, "image_gradients"), gradient(&texts, "text_gradients")];
        assert_eq!(images.device(), Device::Cpu);
        Ok((loss.to_f64()?, differences))
    })
    .unwrap();
    for (loss, differences) in found {
        assert!((loss - number("loss")).abs() < 1e-6, "{loss} {}", number("loss"));
        assert!(differences.iter().all(|d| *d < 1e-6), "{differences:?}");
    }
}
