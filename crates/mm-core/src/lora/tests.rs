//! Adapters are trained, saved and merged.

use super::*;
use crate::{Checkpoint, DType, Device, Module, Params, Role, Tensor, checkpoint::save, nn::Linear};

#[test]
fn merging_gives_what_the_adapted_layers_compute_also_for_chunks_and_transposed_weights() {
    let folder = std::env::temp_dir().join(format!("mm-adapter-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    crate::seed::manual_seed(3);
    let randn = |shape: &[i64]| Tensor::randn(shape, DType::F32, Device::Cpu).unwrap();
    let base = folder.join("model.safetensors");
    // GPT-2's `c_attn`: three layers in one tensor, stored transposed.
    save(
        &base,
        &[
            ("h.0.c_attn.weight".into(), randn(&[5, 15])),
            ("h.0.out.weight".into(), randn(&[4, 5])),
            ("h.0.c_proj.weight".into(), randn(&[5, 5])),
        ],
        &[],
    )
    .unwrap();
    let rename = |name: &str| match name {
        "layers.0.q.weight" => "h.0.c_attn.weight#0/3^T".into(),
        "layers.0.k.weight" => "h.0.c_attn.weight#1/3^T".into(),
        "layers.0.v.weight" => "h.0.c_attn.weight#2/3^T".into(),
        "layers.0.out.weight" => "h.0.out.weight".into(),
        "layers.0.proj.weight" => "h.0.c_proj.weight^T".into(),
        other => other.to_owned(),
    };
    let build = |params: &Params| -> Vec<Linear> {
        let scope = params.scope().pp("layers").pp(0);
        let layer = |name: &str, out| Linear::new(&scope.pp(name), 5, out, false).unwrap();
        vec![layer("q", 5), layer("k", 5), layer("v", 5), layer("out", 4), layer("proj", 5)]
    };
    for use_rslora in [false, true] {
        let open = || Checkpoint::open(&base).unwrap();
        let params = Params::from_checkpoint(open(), Device::Cpu, DType::F32, rename);
        params.add_adapters(LoraConfig { rank: 2, alpha: Some(6.0), use_rslora, ..LoraConfig::default() }).unwrap();
        let layers = build(&params);
        params.finish().unwrap();
        params.freeze_except_adapters(&[]).unwrap();
        let x = randn(&[3, 5]);
        let plain = build(&Params::from_checkpoint(open(), Device::Cpu, DType::F32, rename));
        let outputs = |layers: &[Linear]| layers.iter().map(|l| l.forward(&x, false).unwrap()).collect::<Vec<_>>();
        let max_difference = |a: &[Tensor], b: &[Tensor]| {
            let each = a.iter().zip(b).map(|(a, b)| a.sub(b).unwrap().abs().unwrap().max().unwrap().to_f64().unwrap());
            each.fold(0.0, f64::max)
        };
        assert!(max_difference(&outputs(&layers), &outputs(&plain)) < 1e-7, "a new adapter changes nothing");
        for (name, tensor) in params.named(&[Role::Trainable]) {
            assert!(name.contains(".lora_"));
            crate::no_grad(|| tensor.copy_(&randn(&tensor.shape()))).unwrap();
        }
        let adapted = outputs(&layers);
        assert!(max_difference(&adapted, &outputs(&plain)) > 0.1);
        params.save_adapter(&folder, "base", &[]).unwrap();
        let written = Checkpoint::open(folder.join("adapter_model.safetensors")).unwrap();
        let names: Vec<&str> = written.names().collect();
        assert_eq!(names.len(), 6, "{names:?}");
        assert_eq!(written.shape("base_model.model.h.0.c_attn.lora_B.weight"), Some(&[15, 2][..]));
        let merged =
            Params::from_checkpoint(Adapter::apply_to(&folder, open()).unwrap(), Device::Cpu, DType::F32, rename);
        assert!(max_difference(&adapted, &outputs(&build(&merged))) < 1e-5);
    }
    let config = std::fs::read_to_string(folder.join(ADAPTER_CONFIG)).unwrap();
    std::fs::write(folder.join(ADAPTER_CONFIG), config.replace("LORA", "LOHA")).unwrap();
    let error = Adapter::base_model(&folder).unwrap_err().to_string();
    assert!(error.contains("found LOHA, expected LORA"), "{error}");
    std::fs::remove_dir_all(folder).unwrap();
}
