//! An embedding map as the data that the script of the page draws.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::atlas::Atlas;
use crate::report::{EmbeddingMap, ReportError};

/// What the thumbnails of a page may take as JPEG, in bytes; base64 adds a third.
const THUMBNAIL_BYTES: usize = 8_000_000;
/// Stands for "none" among 16-bit numbers, so so many classes and clusters can be told apart.
const NONE: u16 = u16::MAX;
/// Neighbours kept for each picture.
const NEIGHBOURS: usize = 12;

/// # Errors
/// [`ReportError`] if an index points nowhere, a projection is of another length, or a thumbnail cannot be encoded.
pub(crate) fn map_data(map: &EmbeddingMap, classes: &[String]) -> Result<Value, ReportError> {
    let count = map.pictures.len();
    let too_many = |what, got, most| Err(ReportError::TooMany { what, got, most });
    if count >= u32::MAX as usize {
        return too_many("pictures", count, u32::MAX as usize - 1);
    }
    let small = |index: Option<usize>, what| match index.map(u16::try_from) {
        None => Ok(NONE),
        Some(Ok(index)) if index != NONE => Ok(index),
        Some(_) => Err(ReportError::TooMany { what, got: index.unwrap_or(0) + 1, most: NONE as usize }),
    };
    let (mut class_of, mut cluster_of) = (Vec::with_capacity(2 * count), Vec::with_capacity(2 * count));
    let per_picture = map.pictures.iter().map(|picture| picture.neighbours.len()).max().unwrap_or(0).min(NEIGHBOURS);
    let (mut neighbours, mut cosines) = (Vec::new(), Vec::new());
    for picture in &map.pictures {
        check_class(picture.class, &picture.name, classes)?;
        class_of.extend_from_slice(&small(picture.class, "classes")?.to_le_bytes());
        cluster_of.extend_from_slice(&small(picture.cluster, "clusters")?.to_le_bytes());
        for at in 0..per_picture {
            let (index, cosine) = match picture.neighbours.get(at) {
                None => (u32::MAX, 0.0),
                Some(neighbour) if neighbour.picture < count => {
                    (u32::try_from(neighbour.picture).unwrap_or(u32::MAX), neighbour.cosine)
                }
                Some(neighbour) => {
                    let (neighbour, picture) = (neighbour.picture, picture.name.clone());
                    return Err(ReportError::Neighbour { neighbour, picture, pictures: count });
                }
            };
            neighbours.extend_from_slice(&index.to_le_bytes());
            #[expect(clippy::cast_possible_truncation, reason = "a cosine in ten-thousandths; a NAN becomes 0")]
            let cosine = (cosine.clamp(-1.0, 1.0) * 10_000.0).round() as i16;
            cosines.extend_from_slice(&cosine.to_le_bytes());
        }
    }
    let mut projections = Vec::with_capacity(map.projections.len());
    for projection in &map.projections {
        let (name, places) = (&projection.name, projection.places.len());
        if places != count {
            return Err(ReportError::Places { name: name.clone(), places, pictures: count });
        }
        projections.push(json!({
            "name": name, "note": projection.note, "places": STANDARD.encode(placed(&projection.places)),
        }));
    }
    let thumbnails: Vec<_> = map.pictures.iter().map(|picture| &picture.thumbnail).collect();
    let atlas = Atlas::new(&thumbnails, THUMBNAIL_BYTES)?;
    Ok(json!({
        "names": map.pictures.iter().map(|picture| picture.name.as_str()).collect::<Vec<_>>(),
        "classes": classes,
        "classOf": STANDARD.encode(class_of),
        "clusterOf": STANDARD.encode(cluster_of),
        "projections": projections,
        "perPicture": per_picture,
        "neighbours": STANDARD.encode(neighbours),
        "cosines": STANDARD.encode(cosines),
        "atlas": {
            "side": atlas.side_px, "columns": atlas.columns, "perSheet": atlas.per_sheet, "sheets": atlas.sheets,
        },
    }))
}

/// # Errors
/// [`ReportError::Class`] if the class has no name.
pub(crate) fn check_class(class: Option<usize>, picture: &str, classes: &[String]) -> Result<(), ReportError> {
    match class {
        Some(class) if class >= classes.len() => {
            Err(ReportError::Class { class, picture: picture.to_owned(), classes: classes.len() })
        }
        _ => Ok(()),
    }
}

/// Both coordinates in 16 bits each, at one scale that fits the longer extent; `NONE` twice where there is no place.
fn placed(places: &[[f32; 2]]) -> Vec<u8> {
    let finite = || places.iter().filter(|place| place.iter().all(|value| value.is_finite()));
    let bounds = [0, 1].map(|axis| {
        let ends = finite().fold([f32::INFINITY, f32::NEG_INFINITY], |[low, high], place| {
            [low.min(place[axis]), high.max(place[axis])]
        });
        ends.map(f64::from)
    });
    let extent = bounds.iter().map(|[low, high]| high - low).fold(0.0, f64::max).max(f64::MIN_POSITIVE);
    let mut out = Vec::with_capacity(4 * places.len());
    for place in places {
        let numbers = match place.iter().all(|value| value.is_finite()) {
            false => [NONE; 2],
            true => [0, 1].map(|axis| {
                let middle = f64::midpoint(bounds[axis][0], bounds[axis][1]);
                let share = 0.5 + (f64::from(place[axis]) - middle) / extent;
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of 65,534")]
                let number = (share.clamp(0.0, 1.0) * f64::from(NONE - 1)).round() as u16;
                number
            }),
        };
        numbers.iter().for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
    }
    out
}

#[cfg(test)]
mod tests {
    use twoview_pixels::Image;

    use super::*;
    use crate::report::{MapNeighbour, MapPicture, Projection};

    #[test]
    fn places_keep_their_shape() {
        let bytes = placed(&[[0.0, 10.0], [4.0, 11.0], [f32::NAN, 0.0], [2.0, 10.5]]);
        let numbers: Vec<u16> = bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
        // Four to one: the second axis fills the middle quarter.
        assert_eq!(numbers, [0, 24575, 65534, 40959, NONE, NONE, 32767, 32767]);
        let point = placed(&[[3.0, 3.0]]);
        assert_eq!(point, [32767_u16.to_le_bytes(), 32767_u16.to_le_bytes()].concat());
    }

    #[test]
    fn indices_that_point_nowhere_are_refused() {
        let picture = |class, neighbour| MapPicture {
            name: "a".to_owned(),
            class,
            cluster: None,
            thumbnail: Image::default(),
            neighbours: vec![MapNeighbour { picture: neighbour, cosine: f32::NAN }],
        };
        let map = |pictures, places| EmbeddingMap {
            pictures,
            projections: vec![Projection { name: "PCA".to_owned(), note: String::new(), places }],
        };
        let classes = ["cat".to_owned()];
        let check = |map| map_data(&map, &classes).map(|_| ()).map_err(|error| error.to_string());
        assert_eq!(check(map(vec![picture(Some(0), 0)], vec![[0.0; 2]])), Ok(()));
        let error = "class 1 of \"a\" has no name: there are 1 classes".to_owned();
        assert_eq!(check(map(vec![picture(Some(1), 0)], vec![[0.0; 2]])), Err(error));
        let error = "neighbour 1 of \"a\" is not on the map of 1 pictures".to_owned();
        assert_eq!(check(map(vec![picture(None, 1)], vec![[0.0; 2]])), Err(error));
        let error = "the projection \"PCA\" has 0 places for 1 pictures".to_owned();
        assert_eq!(check(map(vec![picture(None, 0)], vec![])), Err(error));
    }
}
