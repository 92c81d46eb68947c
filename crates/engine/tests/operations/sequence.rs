//! A sequence of operations, told by bytes: any bytes are one, and a byte more or less changes
//! little of it.

use pgrecall_repo::keys::Rotation;

use crate::ground::{Ground, Sentence};

/// Operations of a sequence at most, so that no input takes long.
const OPERATIONS_MAX: usize = 60;

/// New epochs of the keys: each is read whenever the repository is opened.
const ROTATIONS_MAX: u32 = 4;

/// Chunks that there are.
const CHUNKS: u32 = 14;

/// Runs it, and looks after each operation whether all is as it should be.
pub(crate) async fn run(bytes: &[u8]) {
    let mut bytes = bytes.iter().copied();
    let mut ground = Ground::new().await;
    let mut rotations = 0;
    for _ in 0..OPERATIONS_MAX {
        let Some(operation) = bytes.next() else { break };
        let choice = bytes.next().unwrap_or(0);
        let rotation = if choice.is_multiple_of(2) { Rotation::Sealing } else { Rotation::Ids };
        match operation % 24 {
            0..=2 => ground.begin().await,
            3 | 4 => ground.store(choice, range(bytes.next())).await,
            5 | 6 => {
                // Most have chunks to store.
                ground.store(choice, range(bytes.next())).await;
                ground.commit(choice).await;
            }
            7 => ground.commit(choice).await,
            8 => ground.abandon(choice).await,
            9 => ground.vanish(choice),
            10 => ground.plan_expiry(choice).await,
            11 => ground.expire().await,
            12 => {
                ground.plan_expiry(choice).await;
                ground.expire().await;
            }
            13 => ground.hold(choice).await,
            14 => ground.release(choice).await,
            15 => ground.plan_collection(sentence(choice)).await,
            16 => ground.collect().await,
            17 => {
                ground.plan_collection(sentence(choice)).await;
                ground.collect().await;
            }
            18 => ground.retire(choice).await,
            19 => ground.merge().await,
            20 if rotations < ROTATIONS_MAX => {
                rotations += 1;
                ground.rotate(rotation).await;
            }
            20 | 21 => ground.open_again().await,
            22 => ground.spoil_index(choice).await,
            _ => ground.repair().await,
        }
        ground.check().await;
    }
    ground.end().await;
}

/// Some of the chunks.
fn range(byte: Option<u8>) -> std::ops::Range<u32> {
    let byte = u32::from(byte.unwrap_or(0));
    let first = byte % CHUNKS;
    first..(first + 1 + byte / 64).min(CHUNKS)
}

fn sentence(choice: u8) -> Sentence {
    if choice % 4 == 3 { Sentence::Everybody } else { Sentence::Right }
}
