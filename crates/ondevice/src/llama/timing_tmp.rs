use super::attention::*;
#[test]
fn timing() {
    let heads = Heads { queries: 9, keys: 3, size: 64 };
    let mems: Vec<KeyValues> = (0..30).map(|l| { let mut m = KeyValues::default(); for i in 0..1970usize { let row: Vec<f32> = (0..192).map(|j| ((i * 7 + j + l) % 13) as f32 * 0.01).collect(); m.push(&row, &row); } m }).collect();
    let qkv: Vec<f32> = (0..heads.row()).map(|i| (i % 11) as f32 * 0.1).collect();
    for _ in 0..3 {
        let t = std::time::Instant::now();
        let mut s = 0.0;
        for m in &mems { s += attend(&qkv, &[Place { part: 0, position: 1969 }], &[m], heads)[5]; }
        println!("{:?} {s}", t.elapsed());
    }
}
