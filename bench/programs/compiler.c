/* compiler.c - the lifetimes of a compiler: phases that build a lot, keep a part and drop the rest.
 *
 * Pattern: for each function of a made-up program, a parser makes small tree nodes and names; names go into a symbol
 * table that lives to the end and is rehashed as it grows; a second phase walks the tree, makes instructions and lists
 * of operands that grow; then the tree is freed in the order of the walk, and the instructions in a mixed order. Own
 * program; such phases are described by Hanson, "Fast allocation and deallocation of memory based on object lifetimes"
 * (1990), and are what the `gcc` of the SPEC sets does.
 * Stresses: short and long lives side by side in one span, frees in an order unlike that of the allocations.
 *
 * Arguments: functions, tree nodes of each.
 */
#include "common.h"

typedef struct node {
    struct node *left, *right;
    char *name; /* owned; NULL for inner nodes */
    uint32_t kind;
    uint32_t value;
} node;

typedef struct instruction {
    uint32_t *operands;
    uint32_t operand_count, operand_capacity;
    uint64_t code;
    char payload[]; /* differs by code: 0 to 96 bytes */
} instruction;

typedef struct symbol {
    struct symbol *next;
    uint64_t hash;
    char text[];
} symbol;

typedef struct table {
    symbol **buckets;
    size_t bucket_count, symbol_count;
} table;

static tally work;

static void *make(size_t size) {
    work.blocks++;
    return take(size);
}

static void table_rehash(table *t) {
    size_t bucket_count = t->bucket_count * 2;
    symbol **buckets = calloc(bucket_count, sizeof(symbol *));
    if (buckets == NULL) die("out of memory");
    for (size_t i = 0; i < t->bucket_count; i++) {
        for (symbol *s = t->buckets[i], *next; s != NULL; s = next) {
            next = s->next;
            s->next = buckets[s->hash % bucket_count];
            buckets[s->hash % bucket_count] = s;
        }
    }
    free(t->buckets);
    t->buckets = buckets;
    t->bucket_count = bucket_count;
}

static void table_intern(table *t, const char *text) {
    uint64_t hash = 1469598103934665603u;
    size_t length = strlen(text);
    for (size_t i = 0; i < length; i++) hash = (hash ^ (unsigned char)text[i]) * 1099511628211u;
    symbol **bucket = &t->buckets[hash % t->bucket_count];
    for (symbol *s = *bucket; s != NULL; s = s->next)
        if (s->hash == hash && strcmp(s->text, text) == 0) return;
    symbol *s = make(sizeof *s + length + 1);
    s->hash = hash;
    memcpy(s->text, text, length + 1);
    s->next = *bucket;
    *bucket = s;
    if (++t->symbol_count > t->bucket_count) table_rehash(t);
}

/* A name made the way a lexer does: the buffer grows while characters come in. */
static char *name_read(rng *random) {
    size_t length = 2 + rng_below(random, 30), capacity = 8;
    uint64_t which = rng_below(random, 200000);
    char *name = make(capacity);
    for (size_t i = 0; i < length; i++) {
        if (i + 1 == capacity) name = realloc(name, capacity *= 2);
        if (name == NULL) die("out of memory");
        name[i] = (char)('a' + (which + i * (which & 3)) % 26);
        which /= 3;
    }
    name[length] = '\0';
    return name;
}

static node *tree_parse(size_t nodes, rng *random, table *symbols) {
    node *n = make(sizeof *n);
    *n = (node){.kind = (uint32_t)rng_below(random, 64), .value = (uint32_t)nodes};
    if (nodes <= 1) {
        n->name = name_read(random);
        table_intern(symbols, n->name);
        return n;
    }
    size_t left = 1 + rng_below(random, nodes - 1);
    n->left = tree_parse(left, random, symbols);
    n->right = tree_parse(nodes - left, random, symbols);
    return n;
}

static instruction *instruction_emit(uint64_t code) {
    size_t payload = code % 13 * 8;
    instruction *in = make(sizeof *in + payload);
    *in = (instruction){.code = code};
    memset(in->payload, (int)code, payload);
    return in;
}

static void operand_add(instruction *in, uint32_t operand) {
    if (in->operand_count == in->operand_capacity) {
        in->operand_capacity = in->operand_capacity == 0 ? 2 : in->operand_capacity * 2;
        in->operands = realloc(in->operands, in->operand_capacity * sizeof *in->operands);
        if (in->operands == NULL) die("out of memory");
        work.blocks++;
    }
    in->operands[in->operand_count++] = operand;
}

static size_t tree_lower(const node *n, instruction **code, size_t count) {
    if (n->left != NULL) count = tree_lower(n->left, code, count);
    if (n->right != NULL) count = tree_lower(n->right, code, count);
    code[count] = instruction_emit(n->kind);
    operand_add(code[count], n->value);
    for (size_t back = 1; back <= n->kind % 4 && back <= count; back++) {
        operand_add(code[count], (uint32_t)back);
        operand_add(code[count - back], (uint32_t)count);
    }
    return count + 1;
}

static void tree_free(node *n) {
    if (n->left != NULL) tree_free(n->left);
    if (n->right != NULL) tree_free(n->right);
    if (n->name != NULL) work.sum += strlen(n->name);
    free(n->name);
    free(n);
}

/* Frees the even instructions first, as a pass that deletes dead code would, then the others. */
static void code_free(instruction **code, size_t count) {
    for (size_t start = 0; start < 2; start++) {
        for (size_t i = start; i < count; i += 2) {
            for (size_t j = 0; j < code[i]->operand_count; j++) work.sum += code[i]->operands[j];
            free(code[i]->operands);
            free(code[i]);
        }
    }
}

int main(int argc, char **argv) {
    size_t functions = argument(argc, argv, 1, 60), nodes = argument(argc, argv, 2, 8000);
    rng random = rng_seed(0);
    table symbols = {.buckets = calloc(64, sizeof(symbol *)), .bucket_count = 64};
    if (symbols.buckets == NULL) die("out of memory");

    for (size_t i = 0; i < functions; i++) {
        size_t size = nodes / 4 + rng_below(&random, nodes * 3 / 2);
        node *tree = tree_parse(size, &random, &symbols);
        instruction **code = make(2 * size * sizeof *code);
        size_t count = tree_lower(tree, code, 0);
        tree_free(tree);
        code_free(code, count);
        free(code);
    }
    for (size_t i = 0; i < symbols.bucket_count; i++) {
        for (symbol *s = symbols.buckets[i], *next; s != NULL; s = next) {
            next = s->next;
            work.sum += s->hash;
            free(s);
        }
    }
    free(symbols.buckets);
    return tally_print("compiler", work);
}
