//! Parameter names of transformers' vision transformers.

use crate::family::{WeightMap, detect_prefix};
use mm_core::Checkpoint;

/// Maps the backbone's parameters to transformers' names, under the first of `prefixes` that the checkpoint has.
/// transformers 5 renamed the layers; both layouts are supported.
pub fn vit_weight_map(checkpoint: &Checkpoint, prefixes: &[&str]) -> WeightMap {
    let prefix = detect_prefix(checkpoint, "embeddings.patch_embeddings.projection.weight", prefixes);
    let version_5 = checkpoint.shape(&format!("{prefix}layers.0.attention.q_proj.weight")).is_some();
    let any = |part: &str| checkpoint.names().any(|n| n.contains(part));
    let short_norms = any(".norm1.");
    let map = WeightMap::new(&[
        ("backbone.encoder.final_layer_norm.", "backbone.layernorm."),
        (".layer_norm1.", if short_norms { ".norm1." } else { ".layernorm_before." }),
        (".layer_norm2.", if short_norms { ".norm2." } else { ".layernorm_after." }),
        (".layer_scale1", ".layer_scale1.lambda1"),
        (".layer_scale2", ".layer_scale2.lambda1"),
    ]);
    let map = if version_5 {
        map.and(&[
            ("backbone.encoder.layers.", "backbone.layers."),
            (".self_attn.out_proj.", ".attention.o_proj."),
            (".self_attn.", ".attention."),
        ])
    } else {
        let map = map.and(&[
            (".layers.", ".layer."),
            (".self_attn.q_proj.", ".attention.attention.query."),
            (".self_attn.k_proj.", ".attention.attention.key."),
            (".self_attn.v_proj.", ".attention.attention.value."),
            (".self_attn.out_proj.", ".attention.output.dense."),
        ]);
        let dense = any(".intermediate.dense.");
        if dense { map.and(&[(".mlp.fc1.", ".intermediate.dense."), (".mlp.fc2.", ".output.dense.")]) } else { map }
    };
    map.and(&[("^backbone.", prefix)])
}
