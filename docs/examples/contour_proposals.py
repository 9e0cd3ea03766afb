"""Proposals of another method: boxes around the contours of an image.

usage: python contour_proposals.py ANN_FILE IMAGE_FOLDER OUT.npz
"""
import sys

import cv2
import numpy as np

from univip_mm.io.boxes import ProposalRules, filter_boxes, xywh_to_xyxy
from univip_mm.io.coco_json import image_path, read_coco
from univip_mm.io.images import read_image
from univip_mm.proposals import write_proposals
from univip_mm.utils.progress import track


def find_boxes(image: np.ndarray) -> np.ndarray:
    """Propose boxes (N, 4) xyxy, the most likely first: here, the largest."""
    edges = cv2.dilate(cv2.Canny(image, 80, 160), np.ones((5, 5)))
    contours, _ = cv2.findContours(edges, cv2.RETR_LIST,
                                   cv2.CHAIN_APPROX_SIMPLE)
    contours = sorted(contours, key=cv2.contourArea, reverse=True)
    boxes = [cv2.boundingRect(contour) for contour in contours]
    return xywh_to_xyxy(np.array(boxes, np.int32).reshape(-1, 4))


def main(ann_file: str, folder: str, out: str) -> None:
    """Propose boxes in all images and write the proposal file."""
    rules = ProposalRules()  # the paper's
    images = read_coco(ann_file)['images']
    boxes = {}
    for image in track(images):
        pixels = read_image(image_path(folder, image['file_name']))
        boxes[image['id']] = filter_boxes(find_boxes(pixels), rules)
    write_proposals(
        out, boxes, dict(method='contours', rules=rules.as_dict()),
        file_names={x['id']: x['file_name'] for x in images})


if __name__ == '__main__':
    main(*sys.argv[1:])
