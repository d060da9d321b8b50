"""Writes C or C++ for compilers to chew on. Usage: make_source.py c|c++|project SIZE"""

import random
import sys

kind, size = sys.argv[1], int(sys.argv[2])
rng = random.Random(7)


def c_function(number, linkage="static "):
    callee = f"function_{rng.randrange(number)}(a % 7)" if number and linkage else "a"
    lines = [f"{linkage}long function_{number}(long a)", "{",
             f"    struct node_{number % 10} {{ long key; struct node_{number % 10} *next; char text[{number % 50 + 1}]; }} node = {{0}};",
             "    long sum = 0;"]
    for _ in range(rng.randrange(3, 9)):
        k = rng.randrange(1, 1000)
        lines.append(rng.choice([
            f"    for (long i = 0; i < (a & 15); i++) sum += i * {k} ^ (a >> (i & 7));",
            f"    if ((a * {k}) % 13 == {k % 13}) sum ^= {k}; else sum -= a;",
            f"    switch (a % 5) {{ case 0: sum += {k}; break; case 1: sum *= 3; break; case 2: sum -= {k}; /* fall through */ default: sum++; }}",
            f"    node.key += sum * {k}; node.text[a & 0] = (char)({k} & 127); sum += node.text[0];",
            f"    while (sum > {k * 1000}) sum /= {k % 9 + 2};",
            f'    sum += (long)sizeof "a string constant of function {number}, {k}";',
        ]))
    lines += [f"    return sum + node.key + (a > {number % 3} ? {callee} : 0);", "}", ""]
    return "\n".join(lines)


def c_source():
    print("#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n")
    print("#ifdef FAULT\nFAULT\n#endif\n")
    for number in range(size):
        print(c_function(number))
    print("static long (*const table[])(long) = {")
    print(",\n".join(f"    function_{number}" for number in range(size)))
    print("};\n\nint main(void)\n{\n    unsigned long sum = 0;")
    print(f"    for (int i = 0; i < {size}; i += 1 + {size} / 50)\n        sum = sum * 31 + (unsigned long)table[i](i % 3);")
    print('    printf("%lx\\n", sum);\n    return 0;\n}')


def cxx_source():
    headers = ["algorithm", "functional", "future", "iostream", "map", "memory", "regex", "sstream", "string", "thread",
               "unordered_map", "variant", "vector"]
    print("\n".join(f"#include <{header}>" for header in headers))
    for number in range(size):
        key = rng.choice(["int", "long", "std::string", "double"])
        value = rng.choice(["std::vector<int>", "std::string", "std::shared_ptr<long>", "std::variant<int, std::string>"])
        print(f"""
namespace part_{number} {{
struct key {{ {key} value{{}}; int rank = 0; bool operator<(const key &o) const {{ return rank < o.rank; }} }};
template <typename T, int N> struct holder {{ std::map<key, T> items; std::vector<std::unique_ptr<holder<T, N - 1>>> below; }};
template <typename T> struct holder<T, 0> {{ std::unordered_map<std::string, T> items; }};
size_t work(int n)
{{
    holder<{value}, 3> top;
    for (int i = 0; i < n; i++) {{
        top.items[key{{{{}}, i}}] = {value}{{}};
        top.below.push_back(std::make_unique<holder<{value}, 2>>());
        top.below.back()->items.emplace(key{{{{}}, i / 2}}, {value}{{}});
    }}
    std::sort(top.below.begin(), top.below.end(), [](auto &a, auto &b) {{ return a->items.size() < b->items.size(); }});
    std::ostringstream text;
    for (auto &[k, v] : top.items) text << k.rank << ',';
    return text.str().size() + top.below.size();
}}
}}""")
    calls = " + ".join(f"part_{number}::work(n)" for number in range(size))
    print(f"""
int main()
{{
    std::vector<std::future<size_t>> results;
    for (int n = 50; n < 400; n += 50)
        results.push_back(std::async(std::launch::async, [n] {{ return {calls}; }}));
    size_t sum = 0;
    for (auto &result : results) sum += result.get();
    std::string text;
    for (int i = 0; i < 3000; i++) text += std::to_string(i * 7919) + ' ';
    text = std::regex_replace(text, std::regex("([0-9])([0-9])"), "$2$1");
    std::cout << sum << ' ' << std::hash<std::string>{{}}(text) << '\\n';
}}""")


def project():
    for number in range(size):
        with open(f"part{number}.c", "w") as file:
            file.write(c_function(number, linkage=""))
    with open("main.c", "w") as file:
        file.write("#include <stdio.h>\n" + "".join(f"long function_{n}(long);\n" for n in range(size)))
        file.write("int main(void)\n{\n    long sum = 0;\n" + "".join(f"    sum ^= function_{n}({n % 5});\n" for n in range(size)))
        file.write('    printf("%lx\\n", (unsigned long)sum);\n    return 0;\n}\n')
    parts = " ".join(f"part{number}.o" for number in range(size))
    with open("Makefile", "w") as file:
        file.write(f"PARTS = {parts}\nproject: main.o libproject.a\n\t$(CC) -o $@ $^\nlibproject.a: $(PARTS)\n\tar rcsD $@ $^\n"
                   "%.o: %.c\n\t$(CC) -O1 -c -o $@ $<\n")


{"c": c_source, "c++": cxx_source, "project": project}[kind]()
