/* tree.c - binary trees: build, walk, free.
 *
 * Pattern: a tree that lives to the end stays while many shorter-lived trees of all depths are built from the leaves up
 * or from the root down, walked, and freed in post-order. The idea is Boehm's `GCBench` (after Ellis and Kovac), also
 * known from the binary-trees of the Computer Language Benchmarks Game.
 * Stresses: one size class in great numbers, locality of blocks that were allocated one after the other.
 *
 * Arguments: threads, rounds of each, depth of the deepest short-lived tree.
 */
#include "common.h"

typedef struct node {
    struct node *left, *right;
    uint64_t value;
} node;

typedef struct setup {
    size_t rounds, depth;
} setup;

static node *node_new(node *left, node *right, uint64_t value, tally *result) {
    node *n = take(sizeof *n);
    *n = (node){left, right, value};
    result->blocks++;
    return n;
}

static node *tree_build_up(size_t depth, tally *result) {
    if (depth == 0) return node_new(NULL, NULL, 1, result);
    node *left = tree_build_up(depth - 1, result);
    return node_new(left, tree_build_up(depth - 1, result), depth, result);
}

static node *tree_build_down(size_t depth, tally *result) {
    node *n = node_new(NULL, NULL, depth + 1, result);
    if (depth == 0) return n;
    n->left = tree_build_down(depth - 1, result);
    n->right = tree_build_down(depth - 1, result);
    return n;
}

static uint64_t tree_sum(const node *n) { return n == NULL ? 0 : n->value + tree_sum(n->left) + tree_sum(n->right); }

static void tree_free(node *n) {
    if (n == NULL) return;
    tree_free(n->left);
    tree_free(n->right);
    free(n);
}

static void *tree_run(void *arg) {
    worker *self = arg;
    const setup *s = self->job;
    node *long_lived = tree_build_down(s->depth, &self->result);
    for (size_t round = 0; round < s->rounds; round++) {
        for (size_t depth = 4; depth <= s->depth; depth += 2) {
            /* As many trees of a depth as give about the same number of nodes at each. */
            for (size_t i = 0; i < (size_t)1 << (s->depth - depth); i++) {
                node *tree = i % 2 == 0 ? tree_build_up(depth, &self->result) : tree_build_down(depth, &self->result);
                self->result.sum += tree_sum(tree);
                tree_free(tree);
            }
        }
    }
    self->result.sum += tree_sum(long_lived);
    tree_free(long_lived);
    return NULL;
}

int main(int argc, char **argv) {
    setup s = {.rounds = argument(argc, argv, 2, 12), .depth = argument(argc, argv, 3, 17)};
    return tally_print("tree", workers_run(argument(argc, argv, 1, 1), tree_run, &s));
}
