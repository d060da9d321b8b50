"""Dicts, lists, strings, classes and JSON, as a script uses them. @SCALE@ divides the rounds."""

import json

SCALE = @SCALE@


class Item:
    def __init__(self, number, tags):
        self.number = number
        self.name = f"item {number * 7919 % 10007}"
        self.tags = tags
        self.children = []

    def as_dict(self):
        return {"number": self.number, "name": self.name, "tags": self.tags,
                "children": [child.as_dict() for child in self.children]}


def build(count):
    items = [Item(i, [f"t{i % k}" for k in range(2, 6)]) for i in range(count)]
    for item in items[1:]:
        items[item.number // 8].children.append(item)
    return items


def index(items):
    by_tag = {}
    for item in items:
        for tag in item.tags:
            by_tag.setdefault(tag, set()).add(item.name)
    return {tag: sorted(names) for tag, names in by_tag.items()}


def text_work(items):
    text = "\n".join(",".join([item.name, *item.tags]) for item in items)
    rows = [line.split(",") for line in text.split("\n")]
    words = {}
    for row in rows:
        for word in row:
            words[word] = words.get(word, 0) + 1
    return len(text), sum(words.values()), text.replace("item", "thing").count("thing")


def main():
    total, kept = 0, []
    for round_number in range(max(1, 7 // SCALE)):
        items = build(6000 + 100 * round_number)
        tags = index(items)
        encoded = json.dumps(items[0].as_dict(), indent=None)
        decoded = json.loads(encoded)
        numbers = sorted(((i * 48271) % 65537 * 1.5 for i in range(20000)), reverse=True)
        total += len(tags) + len(encoded) + len(decoded["children"]) + sum(text_work(items)) + int(sum(numbers[:99]))
        kept = kept[-2:] + [items]
    print(total, len(kept))


main()
