"""Experiment: does UniVIP learn better features than BYOL?"""
