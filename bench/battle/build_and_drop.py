"""Run by the battle test: builds 150 MiB of objects and drops them, when a line on stdin says so."""

import gc
import sys

COUNT = 290000


def build():
    return [{"number": i, "name": f"item {i * 7919 % 100003}", "tags": [i, float(i), str(i)]} for i in range(COUNT)]


def say(word):
    sys.stdout.write(word + "\n")
    sys.stdout.flush()


say("ready")
sys.stdin.readline()
objects = build()
del objects
gc.collect()
say("dropped")
sys.stdin.readline()
