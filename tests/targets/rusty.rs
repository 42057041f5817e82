// A Rust program that keeps what it boxes: 64 bytes a line on standard input.
use std::io::{BufRead, Write};

#[inline(never)]
fn keep_boxes(kept: &mut Vec<Box<[u8; 64]>>, count: usize) {
    for _ in 0..count {
        kept.push(Box::new([1; 64]));
    }
}

fn main() {
    let mut kept: Vec<Box<[u8; 64]>> = Vec::with_capacity(4096);
    println!("ready {}", std::process::id());
    std::io::stdout().flush().unwrap();
    for line in std::io::stdin().lock().lines() {
        if line.unwrap() == "quit" {
            break;
        }
        keep_boxes(&mut kept, 10);
        println!("done");
    }
    std::hint::black_box(&kept);
}
