// Prints every file below a directory, one a line, as scripts/lib/fidelity.py writes them too.
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

static void hex(const void *bytes, size_t count) {
    for (size_t n = 0; n < count; n++) printf("%02x", ((const unsigned char *)bytes)[n]);
}

#define ROTATE(x, n) ((x) >> (n) | (x) << (32 - (n)))
static uint32_t K[64], H[8];

// The constants are fractions of the roots of the first primes.
static void constants(void) {
    for (int found = 0, p = 2; found < 64; p++) {
        int prime = 1;
        for (int d = 2; d * d <= p; d++) prime &= p % d != 0;
        if (!prime) continue;
        long double low = 0, high = 8;
        for (int n = 0; n < 100; n++) {
            long double middle = (low + high) / 2;
            if (middle * middle * middle > p) high = middle; else low = middle;
        }
        K[found] = (uint32_t)(uint64_t)((low - (int)low) * 4294967296.0L);
        if (found < 8) {
            low = 0, high = 8;
            for (int n = 0; n < 100; n++) {
                long double middle = (low + high) / 2;
                if (middle * middle > p) high = middle; else low = middle;
            }
            H[found] = (uint32_t)(uint64_t)((low - (int)low) * 4294967296.0L);
        }
        found++;
    }
}

static void block(uint32_t *h, const unsigned char *b) {
    uint32_t w[64], v[8];
    for (int n = 0; n < 16; n++) w[n] = (uint32_t)b[4 * n] << 24 | b[4 * n + 1] << 16 | b[4 * n + 2] << 8 | b[4 * n + 3];
    for (int n = 16; n < 64; n++)
        w[n] = w[n - 16] + (ROTATE(w[n - 15], 7) ^ ROTATE(w[n - 15], 18) ^ w[n - 15] >> 3) + w[n - 7] +
               (ROTATE(w[n - 2], 17) ^ ROTATE(w[n - 2], 19) ^ w[n - 2] >> 10);
    memcpy(v, h, sizeof v);
    for (int n = 0; n < 64; n++) {
        uint32_t one = v[7] + (ROTATE(v[4], 6) ^ ROTATE(v[4], 11) ^ ROTATE(v[4], 25)) + ((v[4] & v[5]) ^ (~v[4] & v[6])) + K[n] + w[n];
        uint32_t two = (ROTATE(v[0], 2) ^ ROTATE(v[0], 13) ^ ROTATE(v[0], 22)) + ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));
        memmove(v + 1, v, 7 * sizeof *v);
        v[4] += one, v[0] = one + two;
    }
    for (int n = 0; n < 8; n++) h[n] += v[n];
}

static void digest(const char *path) {
    uint32_t h[8];
    unsigned char buffer[64];
    uint64_t size = 0;
    size_t count;
    memcpy(h, H, sizeof h);
    FILE *file = fopen(path, "rb");
    if (!file) { printf("unreadable"); return; }
    while ((count = fread(buffer, 1, 64, file)) == 64) block(h, buffer), size += 64;
    size += count;
    buffer[count++] = 0x80;
    if (count > 56) { memset(buffer + count, 0, 64 - count); block(h, buffer); count = 0; }
    memset(buffer + count, 0, 56 - count);
    for (int n = 0; n < 8; n++) buffer[63 - n] = (unsigned char)(size * 8 >> 8 * n);
    block(h, buffer);
    for (int n = 0; n < 8; n++) printf("%08x", h[n]);
    fclose(file);
}

static int by_name(const void *a, const void *b) { return strcmp(*(char **)a, *(char **)b); }

static void xattrs(const char *path) {
    static char names[65536], value[65536];
    char *sorted[1000];
    int count = 0;
    ssize_t length = llistxattr(path, names, sizeof names);
    for (char *name = names; name < names + (length > 0 ? length : 0); name += strlen(name) + 1) sorted[count++] = name;
    qsort(sorted, count, sizeof *sorted, by_name);
    if (!count) printf("-");
    for (int n = 0; n < count; n++) {
        printf("%s%s=", n ? "," : "", sorted[n]);
        hex(value, (size_t)(length = lgetxattr(path, sorted[n], value, sizeof value)) > sizeof value ? 0 : length);
    }
}

static void show(const char *path) {
    struct stat info;
    if (lstat(path, &info)) { perror(path); exit(1); }
    char kind = S_ISREG(info.st_mode) ? 'f' : S_ISDIR(info.st_mode) ? 'd' : S_ISLNK(info.st_mode) ? 'l'
              : S_ISFIFO(info.st_mode) ? 'p' : '?';
    hex(path, strlen(path));
    printf(" %c %o %u:%u %lld %lu %lld.%09ld ", kind, info.st_mode & 07777, info.st_uid, info.st_gid,
           kind == 'f' ? (long long)info.st_size : 0, kind == 'd' ? 1UL : (unsigned long)info.st_nlink,
           (long long)info.st_mtim.tv_sec, info.st_mtim.tv_nsec);
    if (kind == 'f') digest(path);
    else if (kind == 'l') {
        static char target[65536];
        ssize_t length = readlink(path, target, sizeof target);
        hex(target, length > 0 ? length : 0);
    } else printf("-");
    putchar(' ');
    xattrs(path);
    putchar('\n');
    if (kind != 'd') return;
    DIR *dir = opendir(path);
    if (!dir) { perror(path); exit(1); }
    for (struct dirent *entry; (entry = readdir(dir));) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        char *below;
        if (asprintf(&below, "%s/%s", path, entry->d_name) < 0) exit(1);
        show(below);
        free(below);
    }
    closedir(dir);
}

int main(int argc, char **argv) {
    if (argc != 3 || chdir(argv[1])) return 2;
    constants();
    show(argv[2]);
    return 0;
}
