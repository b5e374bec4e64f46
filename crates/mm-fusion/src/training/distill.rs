//! A network learns from what teachers say (Hinton 2015), as from models of single modalities (UMT, Du 2023).

use crate::Result;
use mm_core::Tensor;

/// Divergence of a student's softened logits `[rows, classes]` from the teacher's probabilities at the same temperature, times its square.
pub fn distillation(student: &Tensor, teacher_logits: &Tensor, temperature: f64) -> Result<Tensor> {
    let soft = teacher_logits.detach()?.mul_scalar(1.0 / temperature)?;
    let (p, log_p) = (soft.softmax(1)?, soft.log_softmax(1)?);
    let log_q = student.mul_scalar(1.0 / temperature)?.log_softmax(1)?;
    Ok(p.mul(&log_p.sub(&log_q)?)?.sum_dim(&[1], false)?.mean()?.mul_scalar(temperature * temperature)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_student_who_says_the_same_has_no_loss() {
        let a = Tensor::from_vec(&[1f32, 2.0, 0.5, -1.0], &[2, 2]).unwrap();
        assert!(distillation(&a, &a, 2.0).unwrap().to_f64().unwrap().abs() < 1e-6);
        let b = a.neg().unwrap();
        assert!(distillation(&b, &a, 2.0).unwrap().to_f64().unwrap() > 0.1);
    }
}
