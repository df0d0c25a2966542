"""Imported first by the workers of a program in which asyncpar is in joblib's place: it is there, too."""

from asyncpar.joblib.standing_in import install

install()
