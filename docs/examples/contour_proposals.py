"""Proposals by another method: boxes around what the edges of an image
enclose. python contour_proposals.py ANN_FILE IMAGES OUT.npz"""
import sys
from pathlib import Path

import cv2
import numpy as np

from univip_mm.io.boxes import ProposalRules, filter_boxes, xywh_to_xyxy
from univip_mm.io.coco_json import read_coco
from univip_mm.proposals import write_proposals
from univip_mm.utils.progress import track


def find_boxes(image: np.ndarray) -> np.ndarray:
    """Boxes (N, 4) xyxy, the likeliest first: here, the largest."""
    edges = cv2.dilate(cv2.Canny(image, 80, 160), np.ones((5, 5)))
    contours, _ = cv2.findContours(edges, cv2.RETR_LIST,
                                   cv2.CHAIN_APPROX_SIMPLE)
    contours = sorted(contours, key=cv2.contourArea, reverse=True)
    boxes = [cv2.boundingRect(contour) for contour in contours]
    return xywh_to_xyxy(np.array(boxes, np.int32).reshape(-1, 4))


def main(ann_file: str, folder: str, out: str) -> None:
    rules = ProposalRules()  # the paper's three
    images = read_coco(ann_file)['images']
    boxes = {}
    for image in track(images):
        picture = cv2.imread(str(Path(folder) / image['file_name']))
        boxes[image['id']] = filter_boxes(find_boxes(picture), rules)
    write_proposals(
        out, boxes, dict(method='contours', rules=rules.as_dict()),
        file_names={x['id']: x['file_name'] for x in images})


if __name__ == '__main__':
    main(*sys.argv[1:])
